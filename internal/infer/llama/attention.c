#include "attention.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// struct tensor is ggml_tensor, of the pinned version.
struct tensor {
	int32_t type;
	void *buffer;
	int64_t ne[4];
	size_t nb[4];
	int32_t op;
	int32_t op_params[16];
	int32_t flags;
	struct tensor *src[10];
	struct tensor *view_src;
	size_t view_offs;
	void *data;
	char name[64];
	void *extra;
	char padding[8];
};

enum { type_f32 = 0, type_i64 = 27 };

typedef const char *op_desc_function(const struct tensor *t);
typedef bool is_host_function(void *buffer);
typedef void get_function(const struct tensor *t, void *data, size_t offset, size_t size);

struct attention {
	op_desc_function *op_desc;
	is_host_function *is_host;
	get_function *get;

	int32_t n;
	const struct attended *attended;
	const int32_t *cells;
	double *sums;
	int32_t rows;
	int64_t *placed;

	bool is_placed;
	int32_t layers;
	float *row; // scratch, of a device's tensor
	int64_t row_size;
};

struct attention *attention_new(void *op_desc, void *is_host, void *get) {
	struct attention *a = calloc(1, sizeof *a);
	if (a != NULL) {
		a->op_desc = (op_desc_function *)op_desc;
		a->is_host = (is_host_function *)is_host;
		a->get = (get_function *)get;
	}
	return a;
}

void attention_free(struct attention *a) {
	free(a->row);
	free(a);
}

void attention_want(struct attention *a, int32_t n, const struct attended *attended, const int32_t *cells, double *sums,
                    int32_t rows, int64_t *placed) {
	a->n = n;
	a->attended = attended;
	a->cells = cells;
	a->sums = sums;
	a->rows = rows;
	a->placed = placed;
	a->is_placed = false;
	a->layers = 0;
}

int32_t attention_layers(const struct attention *a) { return a->layers; }

bool attention_placed(const struct attention *a) { return a->is_placed; }

static const void *host(const struct attention *a, const struct tensor *t) {
	void *buffer = t->view_src != NULL ? t->view_src->buffer : t->buffer;
	return buffer != NULL && a->is_host(buffer) ? t->data : NULL;
}

// indices is the tensor of the cells that the batch's rows are written to, if t is such a
// write of the keys; else NULL. That of the values may have an index for each number.
static const struct tensor *indices(const struct attention *a, const struct tensor *t) {
	if (strcmp(a->op_desc(t), "SET_ROWS") != 0) {
		return NULL;
	}
	const struct tensor *rows = t->src[1];
	return rows != NULL && rows->type == type_i64 && rows->ne[0] == a->rows ? rows : NULL;
}

static void read_cells(struct attention *a, const struct tensor *rows) {
	const size_t size = (size_t)a->rows * sizeof *a->placed;
	const void *data = host(a, rows);
	if (data != NULL) {
		memcpy(a->placed, data, size);
	} else {
		a->get(rows, a->placed, 0, size);
	}
	a->is_placed = true;
}

// device_row copies a row of weights from a device.
static const float *device_row(struct attention *a, const struct tensor *t, size_t offset) {
	if (a->row_size < t->ne[0]) {
		float *row = realloc(a->row, (size_t)t->ne[0] * sizeof *row);
		if (row == NULL) {
			return NULL;
		}
		a->row = row;
		a->row_size = t->ne[0];
	}
	a->get(t, a->row, offset, (size_t)t->ne[0] * sizeof *a->row);
	return a->row;
}

// row_of is what a row of the batch attends to in one head, by cells; NULL = there is no memory.
static const float *row_of(struct attention *a, const struct tensor *t, int64_t head, int64_t row) {
	const size_t offset = (size_t)head * t->nb[2] + (size_t)row * t->nb[1];
	const char *data = host(a, t);
	return data != NULL ? (const float *)(data + offset) : device_row(a, t, offset);
}

// within reports whether the rows and cells of one are among so many.
static bool within(const struct attention *a, const struct attended *one, int64_t rows, int64_t cells) {
	if (one->first_row < 0 || one->first_row + one->rows > rows) {
		return false;
	}
	for (int32_t i = one->at; i < one->at + one->n; i++) {
		if (a->cells[i] < 0 || a->cells[i] >= cells) {
			return false;
		}
	}
	return true;
}

// add_weights adds what a layer's weights, of [cells, rows, heads], have of what is asked for.
static bool add_weights(struct attention *a, const struct tensor *t) {
	if (t->type != type_f32 || t->nb[0] != sizeof(float) || t->ne[1] != a->rows || t->ne[3] != 1) {
		return false;
	}
	for (const struct attended *one = a->attended; one < a->attended + a->n; one++) {
		if (!within(a, one, t->ne[1], t->ne[0])) {
			return false;
		}
		for (int64_t head = 0; head < t->ne[2]; head++) {
			for (int32_t row = one->first_row; row < one->first_row + one->rows; row++) {
				const float *weights = row_of(a, t, head, row);
				if (weights == NULL) {
					return false;
				}
				for (int32_t i = one->at; i < one->at + one->n; i++) {
					a->sums[i] += weights[a->cells[i]];
				}
			}
		}
	}
	a->layers += (int32_t)t->ne[2];
	return true;
}

static bool is_weights(const struct tensor *t) {
	static const char name[] = "kq_soft_max-";
	return strncmp(t->name, name, sizeof name - 1) == 0;
}

// evaluated is called twice for each tensor: with ask, whether it is wanted, and then, if it
// is, when it is there.
static bool evaluated(struct tensor *t, bool ask, void *user) {
	struct attention *a = user;
	if (a->rows == 0 || a->layers < 0) {
		return !ask;
	}
	if (is_weights(t)) {
		if (ask) {
			return a->n > 0;
		}
		if (!add_weights(a, t)) {
			a->layers = -1;
		}
		return true;
	}
	const struct tensor *rows = a->is_placed ? NULL : indices(a, t);
	if (rows != NULL && !ask) {
		read_cells(a, rows);
	}
	return !ask || rows != NULL;
}

void *attention_callback(void) { return (void *)evaluated; }
