#include "decoder.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

typedef int32_t decode_function(void *context, struct batch b);
typedef void synchronize_function(void *context);

struct decoder {
	decode_function *decode;
	synchronize_function *synchronize;
	int done;
	pthread_t thread;
	sem_t wanted; // posted for each batch, and to end

	// Written before wanted is posted, or before done is written to.
	bool stop;
	void *context;
	struct batch batch;
	int code;
};

static void *decoder_loop(void *argument) {
	struct decoder *d = argument;
	for (;;) {
		while (sem_wait(&d->wanted) != 0) {
			// interrupted by a signal
		}
		if (d->stop) {
			return NULL;
		}
		d->code = d->decode(d->context, d->batch);
		d->synchronize(d->context);
		const uint64_t one = 1;
		while (write(d->done, &one, sizeof one) != sizeof one) {
			// interrupted by a signal: an eventfd that is read each time is never full
		}
	}
}

struct decoder *decoder_start(void *decode, void *synchronize, int done) {
	struct decoder *d = calloc(1, sizeof *d);
	if (d == NULL) {
		return NULL;
	}
	d->decode = (decode_function *)decode;
	d->synchronize = (synchronize_function *)synchronize;
	d->done = done;
	if (sem_init(&d->wanted, 0, 0) != 0) {
		free(d);
		return NULL;
	}
	if (pthread_create(&d->thread, NULL, decoder_loop, d) != 0) {
		sem_destroy(&d->wanted);
		free(d);
		return NULL;
	}
	return d;
}

void decoder_run(struct decoder *d, void *context, struct batch b) {
	d->context = context;
	d->batch = b;
	sem_post(&d->wanted);
}

int decoder_code(const struct decoder *d) { return d->code; }

void decoder_stop(struct decoder *d) {
	d->stop = true;
	sem_post(&d->wanted);
	pthread_join(d->thread, NULL);
	sem_destroy(&d->wanted);
	free(d);
}
