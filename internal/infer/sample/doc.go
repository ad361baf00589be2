// Package sample chooses the tokens of an answer from logits. It knows nothing of
// llama.cpp, and chooses as its sampler chain does: bias → penalties → top-k → top-p →
// min-p → temperature → draw.
//
// A Sampler belongs to one answer. Workers runs the selections of one step on several
// cores. A Mixture belongs to one answer of parallel generation, and chooses sets of tokens.
//
// # What is drawn
//
// Of two tokens with the same logit the one with the lower id counts as the likelier,
// everywhere, so that what the filters keep is always the beginning of one order. The
// draw goes through what they keep in the order of the vocabulary, and takes one random
// number. Where top-p keeps more than the likeliest hundred or so, a token is drawn without
// it, up to twice, and is taken if top-p keeps it: to find out about one token is one pass
// over the logits, to find out what all is kept takes four times as long. The same seed gives the
// same token, on how many cores, on whatever CPU.
//
// That holds bit for bit because probabilities are whole numbers. The vocabulary is cut
// into blocks of 256 tokens. In a block, a token's value is its probability relative to
// the block's likeliest, in units of 2^-27; a block's weight is the sum of its values
// times the probability of its likeliest relative to the likeliest of all, in units of
// 2^-40. The draw finds a block by weight and a token in it by value. Both are computed
// in single precision by steps that every CPU rounds alike. So the distribution is
// softmax's, but for about a millionth, and what has less than 2^-27 of the probability of
// the likeliest in its block is never drawn.
//
// # What a set is
//
// A Mixture draws nothing: it computes the probabilities of the tokens that can be in the set.
// What a token has in the mean of some distributions, it has in one of them. So a token is
// looked at only if its logit in some row is large enough for the threshold; or, if nothing
// reaches that, for what the likeliest token of some row has. Of each row one pass gives what its
// softmax divides by, right within half a millionth. A second one marks the tokens that are to be
// looked at, and a third adds what they have in the row, whether it was this row that marked them
// or another: powers in single precision, right within a third of a millionth, that are added up
// in double precision. With 256 rows and 30,000 tokens to look at this takes about 1 ns for each
// token and row.
//
// # How it is fast
//
// One pass over the logits finds the largest of each block and, where the draw needs it,
// the block's sum, while the block is in the nearest cache; it is bound by memory rather
// than by arithmetic. From there on only a few blocks are looked at: the k likeliest
// tokens are in those blocks whose largest logit is no less than the k-th largest of
// these. The passes are C (kernel.h), compiled for AVX2 with FMA and for what every CPU of
// the architecture has (SSE2, NEON); the CPU is asked at run time.
package sample
