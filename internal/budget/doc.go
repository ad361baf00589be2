// Package budget decides who may use a device's memory and keeps the count.
//
// It has four layers, and each knows only those before it:
//
//   - arithmetic: [Bytes], [Footprint] (saturating, no raw byte arithmetic elsewhere);
//   - bookkeeping: [Group], [Ledger] and [Lease], one ledger for each device and one
//     for the host, from which a job leases together or not at all. A ledger's limit
//     holds lines (weights, KV cache, parallel batch, overhead); the leases of
//     running jobs lie inside the KV cache's line, the pool;
//   - readers: [List] and [Discover], [GPU] (NVML), [HostMemory], [UsableCores]
//     (cgroups before the machine), [ProportionalSetSize], [UncachedSetSize] and the
//     [Monitor] that samples processes;
//   - policy, pure functions: [EffectiveLimit], [PlanPool], [AutoParallelTokens].
//
// The invariant of a ledger is that the leases add up to what is reserved and
// that no lease is given or grown unless what is reserved then fits into the
// room there is. Room can shrink under leases that exist (others took memory);
// then nothing new is reserved until it fits again.
//
// All sizes are in bytes, binary units are powers of 1024. The readers of host
// memory need Linux.
package budget
