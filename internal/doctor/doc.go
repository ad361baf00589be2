// Package doctor looks whether a job could run here: the libraries, the devices,
// the model, the queue, and the memory that the worker would plan. It changes
// nothing, loads nothing and leaves nothing behind.
package doctor
