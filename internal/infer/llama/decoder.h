// A thread on which llama.cpp decodes.

#ifndef TEMPO_DECODER_H
#define TEMPO_DECODER_H

#include <stdint.h>

// struct batch is llama_batch.
struct batch {
	int32_t n_tokens;
	int32_t *token;
	float *embd;
	int32_t *pos;
	int32_t *n_seq_id;
	int32_t **seq_id;
	int8_t *logits;
};

struct decoder;

// decoder_start starts a thread. It calls decode (llama_decode) and synchronize
// (llama_synchronize) for each batch, and writes to the eventfd done after it. It returns
// NULL if there cannot be another thread.
struct decoder *decoder_start(void *decode, void *synchronize, int done);

// decoder_run has the thread decode a batch, whose arrays must stay until it has.
void decoder_run(struct decoder *d, void *context, struct batch b);

// decoder_code is what llama_decode returned for the last batch that is done.
int decoder_code(const struct decoder *d);

// decoder_stop ends the thread, between two batches, and frees it.
void decoder_stop(struct decoder *d);

#endif
