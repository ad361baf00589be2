// Reads attention weights while llama.cpp decodes.

#ifndef TEMPO_ATTENTION_H
#define TEMPO_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct attention;

// attention_new makes a reader. op_desc, is_host and get are ggml_op_desc,
// ggml_backend_buffer_is_host and ggml_backend_tensor_get. It returns NULL if there is no
// memory.
//
// A layer's weights that are on a device are copied to the host as a whole, or head by head what
// is asked for of it where that is faster or the whole has more bytes than `most`. The reader
// keeps host memory for the largest copy: cells × rows × heads × 4 bytes, but at most `most`, or
// a row's cells × 4 if that is more.
struct attention *attention_new(void *op_desc, void *is_host, void *get, size_t most);

// attention_callback is what llama.cpp is to call (ggml_backend_sched_eval_callback), with
// the reader as its user data.
void *attention_callback(void);

// struct attended is some rows of a batch that follow each other, and cells of the pool of which
// it is asked how much these rows attend to them: n of the cells of attention_want, from at on.
struct attended {
	int32_t first_row, rows;
	int32_t at, n;
};

// attention_want says what the next batch is to be read for: the weights of all rows of each of
// the n are added to the sums of its cells; and, in placed, which cell of the pool each of the
// batch's rows goes to. The arrays must stay until the batch is done. With rows 0 nothing is
// read.
void attention_want(struct attention *a, int32_t n, const struct attended *attended, const int32_t *cells, double *sums,
                    int32_t rows, int64_t *placed);

// attention_layers is how many weights of each row were added to each sum, one for each layer and
// head, since attention_want. It is 0 if none was seen, and negative if they were not as expected.
int32_t attention_layers(const struct attention *a);

// attention_placed reports whether it was seen which cells the rows go to.
bool attention_placed(const struct attention *a);

void attention_free(struct attention *a);

#endif
