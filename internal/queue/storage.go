package queue

import (
	"context"
	"fmt"
)

// Storage is how full the fullest of what bounds the queue's storage is.
type Storage struct {
	What  string // "stream RESULTS", "the account's storage"
	Used  int64  // bytes
	Limit int64  // bytes; 0 = none
}

// jobsUpTo is the share of a limit up to which jobs are taken; the rest is for the results of
// those that are there.
const jobsUpTo = 0.8

// full reports whether no more jobs are taken.
func (s Storage) full() bool { return s.Limit > 0 && float64(s.Used) > jobsUpTo*float64(s.Limit) }

// fuller reports whether s is fuller than o.
func (s Storage) fuller(o Storage) bool {
	return s.Limit > 0 && (o.Limit <= 0 || float64(s.Used)/float64(s.Limit) > float64(o.Used)/float64(o.Limit))
}

// Storage returns the fullest of the limits that the account and the streams have. Limit is 0
// if there is none.
func (c *Client) Storage(ctx context.Context) (fullest Storage, err error) {
	err = c.retry(ctx, "read how much is stored", func(ctx context.Context) error {
		fullest = Storage{}
		account, err := c.js.AccountInfo(ctx)
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		fullest = Storage{"the account's storage", int64(account.Store), max(account.Limits.MaxStore, 0)}
		for _, name := range []string{streamJobs, streamResults} {
			s, err := c.js.Stream(ctx, name)
			if err != nil {
				return err //nolint:wrapcheck // retry wraps it
			}
			info := s.CachedInfo()
			if now := (Storage{"stream " + name, int64(info.State.Bytes), max(info.Config.MaxBytes, 0)}); now.fuller(fullest) {
				fullest = now
			}
		}
		return nil
	})
	return fullest, err
}

// StorageError says that no more jobs are taken, since there might be no room for their results.
type StorageError struct{ Storage }

func (e *StorageError) Error() string {
	return fmt.Sprintf("%s holds %.1f of %.1f MiB: no more jobs are taken beyond %.0f %%, for the results of those that are queued must have room",
		e.What, mib(e.Used), mib(e.Limit), 100*jobsUpTo)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// Hint says what to do.
func (e *StorageError) Hint() string {
	return "remove batches whose results you have (submit purge BATCH; submit status lists them), keep results for a shorter time (--results-ttl), " +
		"or give the server more (nats stream edit --max-bytes, or the account's max_file)"
}

// checkRoom returns a *[StorageError] if no more jobs are to be taken.
func (c *Client) checkRoom(ctx context.Context) error {
	s, err := c.Storage(ctx)
	if err == nil && s.full() {
		return &StorageError{s}
	}
	return err
}

// keepResultsFor changes how long results are kept, if it is another time than now.
func (c *Client) keepResultsFor(ctx context.Context, t Topology) error {
	if t.ResultsMaxAge == 0 {
		return nil
	}
	return c.retry(ctx, "change how long results are kept", func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, streamResults)
		if err != nil {
			return err //nolint:wrapcheck // retry wraps it
		}
		cfg := s.CachedInfo().Config
		if cfg.MaxAge == t.ResultsMaxAge {
			return nil
		}
		cfg.MaxAge = t.ResultsMaxAge
		cfg.Duplicates = min(cfg.Duplicates, cfg.MaxAge) // the server wants it so
		_, err = c.js.UpdateStream(ctx, cfg)
		return err //nolint:wrapcheck // retry wraps it
	})
}
