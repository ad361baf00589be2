// Package show draws the sets of parallel generation: it finds results with sets in a
// file of results, and writes a page of HTML that needs nothing else.
package show
