package budget

import (
	"context"
	"testing"
)

func benchmarkLedger(b *testing.B, pool Bytes) *Ledger {
	b.Helper()
	l, err := NewLedger("cpu", GiB)
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Book(KVCache, pool); err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkAcquire has room for all who ask: the usual case of a job.
func BenchmarkAcquire(b *testing.B) {
	l := benchmarkLedger(b, GiB)
	b.ReportAllocs()
	for b.Loop() {
		s, err := l.Acquire(context.Background(), MiB, Normal)
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

// BenchmarkAcquireWaits has room for one of the goroutines at a time, so that
// nearly every request waits in the queue.
func BenchmarkAcquireWaits(b *testing.B) {
	l := benchmarkLedger(b, MiB)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := l.Acquire(context.Background(), MiB, Normal)
			if err != nil {
				b.Error(err)
				return
			}
			s.Release()
		}
	})
}
