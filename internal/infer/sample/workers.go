package sample

import "sync"

// Workers run the selections of one step on several cores. Its goroutines wait between
// two steps. Each and Close must be called from one goroutine at a time.
type Workers struct {
	wake chan struct{}
	gone sync.WaitGroup
	help int

	mu   sync.Mutex
	all  sync.Cond // done == n
	f    func(i int)
	next int // the first i that nobody has taken
	n    int
	done int // calls of f that have returned
}

// NewWorkers makes so many workers; the caller of Each is one of them, so that 1 (or
// less) starts no goroutine. They must be closed.
func NewWorkers(workers int) *Workers {
	w := &Workers{help: max(workers-1, 0)}
	w.all.L = &w.mu
	w.wake = make(chan struct{}, w.help)
	for range w.help {
		w.gone.Go(func() {
			for range w.wake {
				w.work()
			}
		})
	}
	return w
}

// Each calls f for 0 to n-1, each once, in any order and several at once, and returns
// when all calls have returned.
func (w *Workers) Each(n int, f func(i int)) {
	if w.help == 0 || n <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	w.mu.Lock()
	w.f, w.next, w.n, w.done = f, 0, n, 0
	w.mu.Unlock()
	for range min(w.help, n-1) {
		select {
		case w.wake <- struct{}{}:
		default: // one that was woken before has not come to it yet
		}
	}
	w.work()
	w.mu.Lock()
	for w.done < w.n {
		w.all.Wait()
	}
	w.f = nil
	w.mu.Unlock()
}

// work takes calls as long as there are any. One that wakes late finds none, or helps
// with the next step.
func (w *Workers) work() {
	w.mu.Lock()
	for w.next < w.n {
		i, f := w.next, w.f
		w.next++
		w.mu.Unlock()
		f(i)
		w.mu.Lock()
		if w.done++; w.done == w.n {
			w.all.Broadcast()
		}
	}
	w.mu.Unlock()
}

// Close ends the goroutines.
func (w *Workers) Close() {
	close(w.wake)
	w.gone.Wait()
}
