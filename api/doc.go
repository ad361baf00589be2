// Package api holds the messages on the wire: what submit publishes, what a
// worker answers, and what both keep in the key-value buckets. Everything here
// is JSON with OpenAI's field names where OpenAI has one; what Tempo adds stands
// in an object called "tempo".
//
// The package imports nothing of the project, so that readers in other
// processes can be built on it alone.
package api
