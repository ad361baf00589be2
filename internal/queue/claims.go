package queue

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"tempo/api"
)

// The claims on a device are one value of the bucket CLAIMS, which is changed by
// compare-and-set only. Each stands for as long as its sign of life does, a key of
// the bucket CLAIMANTS that the server drops claimTTL after it was last written: by
// the server's clock, so that no two machines' clocks are compared. A sign that has
// expired does not come back. Its worker makes another, and the claim that stood on
// the first stays dead, whether somebody has taken its memory meanwhile or not.
//
// The entries of WORKERS would not do: a worker says there that it takes jobs, long
// after it has claimed memory to load its model, and no longer while it drains.

// claim is a claim as it is stored.
type claim struct {
	api.Claim
	Sign string `json:"sign"` // key in CLAIMANTS
}

// sign is the sign of life of a claim of this client.
type sign struct {
	key      string
	revision uint64
}

// Claim promises a worker memory of a device: decide gets the claims of the others
// that live, and returns what the worker is to have beside them. It is called again
// if somebody else has changed the claims in the meantime, or if the answer of the
// server got lost. Its error ends Claim and is returned wrapped; then nothing has
// changed. What decide returns replaces the worker's earlier claim; Worker and Time
// are filled in.
//
// A claim lives for [Topology.ClaimTTL] (30 s) after the worker's last call of
// Claim, whatever that returned: a worker calls it at least every 10 s. One that
// comes later finds its claim gone ([Client.Claims] does not list it), and has to
// make do with what the others have left.
//
// Workers are told apart by their client too: of two with one name, each sees the
// other's claim. A *[ClaimsError] says that what is stored cannot be read.
func (c *Client) Claim(ctx context.Context, device, worker string, decide func(others []api.Claim) (api.Claim, error)) error {
	return c.changeClaims(ctx, "claim memory of "+device, device, func(ctx context.Context, all []claim) ([]claim, error) {
		sign, err := c.giveSign(ctx, device, worker)
		if err != nil {
			return nil, err
		}
		others, err := c.living(ctx, withoutSign(all, sign))
		if err != nil {
			return nil, err
		}
		mine, err := decide(plain(others))
		if err != nil {
			return nil, &finalError{err}
		}
		mine.Worker, mine.Time = worker, time.Now()
		return append(others, claim{mine, sign}), nil
	})
}

// Unclaim gives a worker's claim back that was made with this client, if it has one.
// Without it the claim ends with its sign of life.
func (c *Client) Unclaim(ctx context.Context, device, worker string) error {
	c.mu.Lock()
	own, ok := c.signs[claimant(device, worker)]
	c.mu.Unlock()
	if !ok {
		return nil
	}
	return c.changeClaims(ctx, "give back memory of "+device, device, func(_ context.Context, all []claim) ([]claim, error) {
		return withoutSign(all, own.key), nil
	})
}

// Claims returns the claims on a device that live, in no particular order. Those that
// were made with this client are marked as its own. The error is [ErrNoStreams] where
// EnsureTopology has not been called.
func (c *Client) Claims(ctx context.Context, device string) ([]api.Claim, error) {
	var living []claim
	err := c.retry(ctx, "read the claims on "+device, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, bucketClaims)
		if err != nil {
			return err
		}
		all, _, err := readClaims(ctx, kv, Token(device))
		if err != nil {
			return err
		}
		living, err = c.living(ctx, all)
		return err
	})
	own := map[string]bool{}
	c.mu.Lock()
	for _, s := range c.signs {
		own[s.key] = true
	}
	c.mu.Unlock()
	for i := range living {
		living[i].Own = own[living[i].Sign]
	}
	return plain(living), err
}

// changeClaims replaces the claims on a device by what change makes of them, however
// many others do so at the same time.
func (c *Client) changeClaims(ctx context.Context, what, device string, change func(context.Context, []claim) ([]claim, error)) error {
	key := Token(device)
	for attempt := 0; ; attempt++ {
		err := c.retry(ctx, what, func(ctx context.Context) error {
			kv, err := c.bucket(ctx, bucketClaims)
			if err != nil {
				return err
			}
			all, revision, err := readClaims(ctx, kv, key)
			if err != nil {
				return err
			}
			if all, err = change(ctx, all); err != nil {
				return err
			}
			value, err := json.Marshal(all)
			if err != nil {
				return &finalError{err}
			}
			if revision == 0 {
				_, err = kv.Create(ctx, key, value)
			} else {
				_, err = kv.Update(ctx, key, value, revision)
			}
			return err //nolint:wrapcheck // retry wraps it
		})
		if err == nil || !errors.Is(err, jetstream.ErrKeyRevisionMismatch) && !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
		if !pause(ctx, backoff(attempt, 2*time.Millisecond, 250*time.Millisecond)) {
			return fmt.Errorf("%s: %w (last: %w)", what, context.Cause(ctx), err)
		}
	}
}

// readClaims is one try to read the claims under a key; the revision is 0 if there
// are none.
func readClaims(ctx context.Context, kv jetstream.KeyValue, key string) ([]claim, uint64, error) {
	e, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // retry wraps it
	}
	var all []claim
	if err := json.Unmarshal(e.Value(), &all); err != nil {
		return nil, 0, &finalError{&ClaimsError{Key: key, Err: err}}
	}
	for _, one := range all {
		if one.Sign == "" {
			return nil, 0, &finalError{&ClaimsError{Key: key, Err: errors.New("a claim has no sign of life")}}
		}
	}
	return all, e.Revision(), nil
}

// living returns the claims whose sign of life is there.
func (c *Client) living(ctx context.Context, all []claim) ([]claim, error) {
	var living []claim
	for _, one := range all {
		revision, err := c.lastRevision(ctx, bucketClaimants, one.Sign)
		if err != nil {
			return nil, err
		}
		if revision > 0 {
			living = append(living, one)
		}
	}
	return living, nil
}

// giveSign renews the sign of life of a worker's claim, or makes the first or the
// next one, and returns its key.
func (c *Client) giveSign(ctx context.Context, device, worker string) (string, error) {
	kv, err := c.bucket(ctx, bucketClaimants)
	if err != nil {
		return "", err
	}
	name := claimant(device, worker)
	c.mu.Lock()
	s, known := c.signs[name]
	c.mu.Unlock()
	if known {
		s.revision, err = kv.Update(ctx, s.key, nil, s.revision)
		if errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			// It has expired, or the answer to the last update got lost.
			s.revision, err = c.lastRevision(ctx, bucketClaimants, s.key)
		}
		if err != nil {
			return "", err
		}
	}
	if s.revision == 0 {
		s.key = name + "." + rand.Text()
		if s.revision, err = kv.Create(ctx, s.key, nil); err != nil {
			return "", err //nolint:wrapcheck // retry wraps it
		}
	}
	c.mu.Lock()
	c.signs[name] = s
	c.mu.Unlock()
	return s.key, nil
}

// claimant is the part of a sign's key that says whose it is.
func claimant(device, worker string) string { return Token(device) + "." + Token(worker) }

func withoutSign(all []claim, sign string) []claim {
	others := []claim{} // stored as an empty list
	for _, one := range all {
		if one.Sign != sign {
			others = append(others, one)
		}
	}
	return others
}

func plain(all []claim) []api.Claim {
	claims := make([]api.Claim, len(all))
	for i, one := range all {
		claims[i] = one.Claim
	}
	return claims
}

// ClaimsError says that the claims on a device are none that this Tempo can read.
type ClaimsError struct {
	Key string // in the bucket CLAIMS
	Err error
}

func (e *ClaimsError) Error() string {
	return fmt.Sprintf("read key %s of bucket %s: %v", e.Key, bucketClaims, e.Err)
}

func (e *ClaimsError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *ClaimsError) Hint() string {
	return fmt.Sprintf("see what it is (nats kv get %[1]s %[2]s); if no worker of another Tempo version runs, remove it (nats kv del %[1]s %[2]s)", bucketClaims, e.Key)
}
