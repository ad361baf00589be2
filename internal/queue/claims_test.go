package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"tempo/api"
)

// newShared starts a server whose claims live for ttl, and n clients of it.
func newShared(t *testing.T, ttl time.Duration, n int) []*Client {
	t.Helper()
	e, err := StartEmbedded(EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	clients := make([]*Client, n)
	for i := range clients {
		clients[i], err = ConnectEmbedded(t.Context(), e, nil)
		require.NoError(t, err)
		t.Cleanup(clients[i].Close)
	}
	require.NoError(t, clients[0].EnsureTopology(t.Context(), Topology{ClaimTTL: ttl}))
	return clients
}

var errFull = errors.New("the device is full")

// ask claims n bytes of a device of capacity bytes.
func ask(capacity, n int64) func(others []api.Claim) (api.Claim, error) {
	return func(others []api.Claim) (api.Claim, error) {
		if sum(others)+n > capacity {
			return api.Claim{}, errFull
		}
		return api.Claim{Bytes: n}, nil
	}
}

func sum(claims []api.Claim) (bytes int64) {
	for _, c := range claims {
		bytes += c.Bytes
	}
	return bytes
}

// claims returns what each worker has claimed of a device.
func claims(t *testing.T, c *Client, device string) map[string]int64 {
	t.Helper()
	all, err := c.Claims(t.Context(), device)
	require.NoError(t, err)
	byWorker := map[string]int64{}
	for _, one := range all {
		byWorker[one.Worker] += one.Bytes
	}
	return byWorker
}

// Twenty workers want ten each of a hundred, all at once.
func TestClaimsOfManyAtOnceFit(t *testing.T) {
	t.Parallel()
	clients := newShared(t, time.Minute, 5)
	watching, stop := context.WithCancel(t.Context())
	watched := make(chan int64, 1)
	go func() {
		var most int64
		for watching.Err() == nil {
			if all, err := clients[0].Claims(watching, "gpu"); err == nil {
				most = max(most, sum(all))
			}
		}
		watched <- most
	}()
	var wg sync.WaitGroup
	var given, refused, other atomic.Int64
	for i := range 20 {
		wg.Go(func() {
			err := clients[i%len(clients)].Claim(t.Context(), "gpu", fmt.Sprint("worker ", i), ask(100, 10))
			switch {
			case err == nil:
				given.Add(1)
			case errors.Is(err, errFull):
				refused.Add(1)
			default:
				other.Add(1)
			}
		})
	}
	wg.Wait()
	stop()
	require.Equal(t, []int64{10, 10, 0}, []int64{given.Load(), refused.Load(), other.Load()})
	require.LessOrEqual(t, <-watched, int64(100))
	all, err := clients[1].Claims(t.Context(), "gpu")
	require.NoError(t, err)
	require.EqualValues(t, 100, sum(all))
	require.Len(t, all, 10)
}

func TestClaim(t *testing.T) {
	t.Parallel()
	c := newShared(t, time.Minute, 1)[0]
	const device, worker = "GPU-1/gi.2 *>", "wörker 1.α\n"
	require.Empty(t, claims(t, c, device))
	began := time.Now()
	require.NoError(t, c.Claim(t.Context(), device, worker, func(others []api.Claim) (api.Claim, error) {
		require.Empty(t, others)
		return api.Claim{Worker: "somebody else", Bytes: 60, Held: 1, Model: model}, nil
	}))
	require.NoError(t, c.Claim(t.Context(), device, "", ask(100, 30)))
	require.NoError(t, c.Claim(t.Context(), "another", worker, ask(100, 100)))
	require.NoError(t, c.Claim(t.Context(), device, worker, func(others []api.Claim) (api.Claim, error) {
		require.Len(t, others, 1, "not its own")
		require.EqualValues(t, 30, others[0].Bytes)
		return api.Claim{Bytes: 70, Held: 50, Model: model}, nil
	}))
	all, err := c.Claims(t.Context(), device)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.WithinRange(t, all[1].Time, began, time.Now())
	all[1].Time = time.Time{}
	require.Equal(t, api.Claim{Worker: worker, Bytes: 70, Held: 50, Model: model, Own: true}, all[1])

	// An error of decide changes nothing.
	kv, err := c.bucket(t.Context(), bucketClaims)
	require.NoError(t, err)
	before, err := kv.Get(t.Context(), Token(device))
	require.NoError(t, err)
	require.ErrorIs(t, c.Claim(t.Context(), device, worker, ask(100, 71)), errFull)
	after, err := kv.Get(t.Context(), Token(device))
	require.NoError(t, err)
	require.Equal(t, before.Revision(), after.Revision())
	require.Equal(t, map[string]int64{worker: 70, "": 30}, claims(t, c, device))

	require.NoError(t, c.Unclaim(t.Context(), device, worker))
	require.NoError(t, c.Unclaim(t.Context(), device, worker), "again")
	require.NoError(t, c.Unclaim(t.Context(), device, "nobody"))
	require.Equal(t, map[string]int64{"": 30}, claims(t, c, device))
	require.Equal(t, map[string]int64{worker: 100}, claims(t, c, "another"))
	require.NoError(t, c.Claim(t.Context(), device, worker, ask(100, 70)))
	require.NoError(t, kv.Delete(t.Context(), Token(device)))
	require.Empty(t, claims(t, c, device))
	require.NoError(t, c.Claim(t.Context(), device, worker, ask(100, 100)), "also where somebody has removed the key")
}

// Two workers whose users gave them the same name do not overwrite each other.
func TestClaimsOfNamesakes(t *testing.T) {
	t.Parallel()
	clients := newShared(t, time.Minute, 2)
	require.NoError(t, clients[0].Claim(t.Context(), "gpu", "w", ask(100, 60)))
	require.ErrorIs(t, clients[1].Claim(t.Context(), "gpu", "w", ask(100, 60)), errFull)
	require.NoError(t, clients[1].Claim(t.Context(), "gpu", "w", ask(100, 40)))
	require.Equal(t, map[string]int64{"w": 100}, claims(t, clients[0], "gpu"))
	all, err := clients[0].Claims(t.Context(), "gpu")
	require.NoError(t, err)
	for _, c := range all {
		require.Equal(t, c.Bytes == 60, c.Own)
	}
	require.NoError(t, clients[1].Unclaim(t.Context(), "gpu", "w"))
	require.Equal(t, map[string]int64{"w": 60}, claims(t, clients[0], "gpu"))
}

// A worker that says nothing for too long has lost its claim, and stays without it
// when it is back, until it claims anew beside those who came meanwhile.
func TestClaimExpires(t *testing.T) {
	t.Parallel()
	clients := newShared(t, 1500*time.Millisecond, 2)
	slow, quick := clients[0], clients[1]
	require.NoError(t, slow.Claim(t.Context(), "gpu", "slow", ask(100, 60)))
	require.ErrorIs(t, quick.Claim(t.Context(), "gpu", "quick", ask(100, 60)), errFull)
	require.Eventually(t, func() bool { return len(claims(t, slow, "gpu")) == 0 }, 5*time.Second, 10*time.Millisecond)

	require.NoError(t, quick.Claim(t.Context(), "gpu", "quick", ask(100, 60)))
	require.ErrorIs(t, slow.Claim(t.Context(), "gpu", "slow", ask(100, 60)), errFull)
	require.Equal(t, map[string]int64{"quick": 60}, claims(t, slow, "gpu"), "its new sign of life does not revive its old claim")
	require.NoError(t, slow.Claim(t.Context(), "gpu", "slow", ask(100, 40)))
	require.Equal(t, map[string]int64{"quick": 60, "slow": 40}, claims(t, slow, "gpu"))
}

// A worker that comes back after its sign of life has ended does not find its claim,
// even if nobody has asked for the device meanwhile.
func TestClaimThatExpiredStaysDead(t *testing.T) {
	t.Parallel()
	c := newShared(t, 500*time.Millisecond, 1)[0]
	require.NoError(t, c.Claim(t.Context(), "gpu", "slow", ask(100, 60)))
	require.Eventually(t, func() bool { return len(claims(t, c, "gpu")) == 0 }, 5*time.Second, 10*time.Millisecond)
	require.ErrorIs(t, c.Claim(t.Context(), "gpu", "slow", func(others []api.Claim) (api.Claim, error) {
		require.Empty(t, others)
		return api.Claim{}, errFull
	}), errFull)
	require.Empty(t, claims(t, c, "gpu"))
}

// A claim that is renewed outlives its sign's time by far.
func TestClaimIsRenewed(t *testing.T) {
	t.Parallel()
	const ttl = 1500 * time.Millisecond
	c := newShared(t, ttl, 1)[0]
	began := time.Now()
	require.Eventually(t, func() bool {
		require.NoError(t, c.Claim(t.Context(), "gpu", "w", ask(100, 60)))
		require.Len(t, claims(t, c, "gpu"), 1)
		return time.Since(began) > 2*ttl
	}, 10*ttl, ttl/5)

	// The answer to a renewal got lost: the sign is still its own.
	name := claimant("gpu", "w")
	kept := c.signs[name]
	c.signs[name] = sign{key: kept.key, revision: kept.revision - 1}
	require.NoError(t, c.Claim(t.Context(), "gpu", "w", ask(100, 60)))
	require.Equal(t, kept.key, c.signs[name].key)
}

// Eight workers change their claims on one device again and again.
func TestClaimsStorm(t *testing.T) {
	t.Parallel()
	const workers, rounds = 8, 15
	clients := newShared(t, time.Minute, workers)
	var decided atomic.Int64
	var group errgroup.Group
	for i, c := range clients {
		group.Go(func() error {
			for n := range int64(rounds) {
				if err := c.Claim(t.Context(), "gpu", fmt.Sprint(i), func([]api.Claim) (api.Claim, error) {
					decided.Add(1)
					return api.Claim{Bytes: n + 1}, nil
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	t.Logf("%d claims took %d decisions", workers*rounds, decided.Load())
	all := claims(t, clients[0], "gpu")
	require.Len(t, all, workers)
	for _, n := range all {
		require.EqualValues(t, rounds, n, "the last claim of each")
	}
}

// With a rival who is always faster a claim goes on until its context ends.
func TestClaimEndsWithItsContext(t *testing.T) {
	t.Parallel()
	clients := newShared(t, time.Minute, 2)
	ctx, cancel := context.WithCancel(t.Context())
	decided := 0
	err := clients[0].Claim(ctx, "gpu", "w", func([]api.Claim) (api.Claim, error) {
		if decided++; decided == 5 {
			cancel()
		}
		return api.Claim{Bytes: 1}, clients[1].Claim(t.Context(), "gpu", "rival", ask(100, 1))
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "claim memory of gpu: ")
	require.Equal(t, 5, decided)
	require.Equal(t, map[string]int64{"rival": 1}, claims(t, clients[1], "gpu"))
}

func TestClaimsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := newShared(t, time.Minute, 1)[0]
	kv, err := c.bucket(t.Context(), bucketClaims)
	require.NoError(t, err)
	for _, value := range []string{`rubbish`, `{"w":5}`, `[{"worker":"w","promised_bytes":5}]`} {
		_, err := kv.PutString(t.Context(), Token("GPU-1.2"), value)
		require.NoError(t, err)
		_, errRead := c.Claims(t.Context(), "GPU-1.2")
		for _, err := range []error{errRead, c.Claim(t.Context(), "GPU-1.2", "w", ask(100, 1))} {
			var foreign *ClaimsError
			require.ErrorAs(t, err, &foreign, value)
			require.ErrorContains(t, err, "key GPU-1=2E2 of bucket CLAIMS")
			require.Contains(t, foreign.Hint(), "nats kv del CLAIMS GPU-1=2E2")
		}
	}
}

// The server goes away and comes back, and claims with it.
func TestClaimThroughARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := StartEmbedded(EmbeddedOptions{Dir: dir, Listen: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	addr := e.server.Addr().String()
	c, err := Connect(t.Context(), Options{URL: e.URL()}, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), Topology{}))
	require.NoError(t, c.Claim(t.Context(), "gpu", "a", ask(100, 60)))
	e.Stop()
	require.Eventually(t, func() bool { return !c.nc.IsConnected() }, 5*time.Second, time.Millisecond)

	claimed := make(chan error, 2)
	go func() { claimed <- c.Claim(t.Context(), "gpu", "a", ask(100, 50)) }()
	go func() { claimed <- c.Claim(t.Context(), "gpu", "b", ask(200, 50)) }()
	e, err = StartEmbedded(EmbeddedOptions{Dir: dir, Listen: addr}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	require.NoError(t, <-claimed)
	require.NoError(t, <-claimed)
	require.Equal(t, map[string]int64{"a": 50, "b": 50}, claims(t, c, "gpu"))
}

func TestClaimWithoutBuckets(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := ConnectEmbedded(t.Context(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.ErrorContains(t, c.Claim(t.Context(), "gpu", "w", ask(1, 1)), "open bucket CLAIMS")
	_, err = c.Claims(t.Context(), "gpu")
	require.ErrorIs(t, err, ErrNoStreams)
	_, err = c.lastRevision(t.Context(), bucketClaimants, "key")
	require.ErrorContains(t, err, "stream not found", "a bucket that is missing is no dead worker")
}
