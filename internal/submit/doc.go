// Package submit is the user's side of a batch: it checks the lines of a file,
// queues them, follows the results into files, and says how it went.
//
// The id of a batch follows from its content and route, so that a run that was
// cut off can simply be started again: what is queued is not queued twice, what
// is done is not done twice.
package submit
