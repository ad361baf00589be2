// Package parallel has the rules of parallel generation (TEMPO): how the threshold goes,
// how many tokens a set may have, and which are taken back. It knows no model: what the
// tokens are likely and attended to is told.
package parallel
