package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lock waits until no other process (or goroutine) sets up the same cache. The
// system drops the lock with the process that holds it, so it is never stale.
func lock(ctx context.Context, root string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, "setup.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for waiting := false; ; waiting = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock the cache: %w", err)
		case !waiting:
			fmt.Fprintln(progress, "waiting for another setup of the same cache")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock the cache: %w", context.Cause(ctx))
		}
	}
}
