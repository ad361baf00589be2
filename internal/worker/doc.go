// Package worker takes jobs from the queue and answers them:
// reserve → pull → run → publish → ack.
//
// A Worker has one model on one device. Start plans its memory in a dry run,
// books it in the device's ledger and loads the model; Run then takes jobs until
// its context is done, and drains. The order of things that keeps the promises:
//
//   - memory is leased before a job is fetched, so a job that was fetched can run;
//   - a job's result is stored before the job is acked, so nothing is lost;
//   - a lease is released only when the engine has let go of the job's KV tokens.
//
// When a running job needs memory that is not there, the youngest job goes back
// to the queue, which costs it no attempt; the oldest always can finish.
//
// A Team has several models on one device. Each that is loaded has a Worker, which
// knows little of the others: common keeps their bookings within one limit, and the
// Team says in turns who is loaded and, on a CPU, who works.
package worker
