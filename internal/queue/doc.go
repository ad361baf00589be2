// Package queue is Tempo's side of NATS JetStream, and the only place that talks
// to NATS.
//
// A prompt is one message of the stream JOBS, on a subject of its own,
// jobs.<priority>.<model>.<batch>.<job>, so that it cannot be queued twice. Its
// answer is one message of RESULTS, results.<batch>.<job>; the second one is
// refused. Between the two a worker's [Taker] gives out a [Delivery], which is
// given out again when the worker vanishes. The buckets BATCHES (the batch
// objects), WORKERS (who is there), ATTEMPTS (what became of deliveries that
// came to no result), and CLAIMS and CLAIMANTS (what each may hold of a device that several
// share) stand beside them, STATS keeps an hour of memory statistics, and DLQ
// is for dead letters.
//
// The ways through the package:
//
//   - [Connect], or [StartEmbedded] and [ConnectEmbedded], then
//     [Client.EnsureTopology];
//   - submit: [Client.CreateBatch], [Client.NewPublisher], [Client.UpdateBatch],
//     [Client.Results];
//   - worker: [Client.NewTaker], [Taker.Run] beside [Taker.Fetch],
//     [Client.HasResult], then [Delivery.Complete] or [Delivery.GiveBack];
//   - workers on one device: [Client.Claim] at least every 10 s, [Client.Unclaim].
//
// # Outages
//
// A call that cannot reach the server is tried again, with backoff, until it
// succeeds or its context is done; nothing that was accepted is lost. Only what
// is repeated anyway is tried once: [Client.PublishStats], [Client.Announce] and
// [Client.Withdraw].
//
// # Goroutines
//
// A [Client] and a [Taker] may be used by many goroutines. A [Delivery] and a
// [Publisher] belong to one at a time. The package starts goroutines only inside calls that block
// ([Taker.Run]) and in what must be closed ([Client.Close], [Embedded.Stop]).
package queue
