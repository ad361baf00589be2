package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Streams and buckets.
const (
	streamJobs    = "JOBS"
	streamResults = "RESULTS"
	streamDLQ     = "DLQ"
	streamStats   = "STATS"

	bucketBatches   = "BATCHES"
	bucketWorkers   = "WORKERS"
	bucketAttempts  = "ATTEMPTS"
	bucketClaims    = "CLAIMS"
	bucketClaimants = "CLAIMANTS"
	bucketBlobs     = "BLOBS"
)

const (
	// maxConsumers is the most batches (times models) that can have a consumer on
	// JOBS; the server's default of 1,000 is too few for many models.
	maxConsumers = 10_000
	// dedupeWindow only has to cover two submitters of one batch at once: queued
	// jobs are told by their subject, and finished ones by their result.
	dedupeWindow = 2 * time.Minute
	// resultsMaxAge is long enough to read the results of a batch after a weekend.
	resultsMaxAge = 7 * 24 * time.Hour
	statsMaxAge   = time.Hour
	dlqMaxAge     = 90 * 24 * time.Hour
	workerTTL     = 30 * time.Second
	claimTTL      = 30 * time.Second
)

// Topology is what an operator can choose of the streams. It counts when they are
// created; streams that exist stay as they are.
type Topology struct {
	ResultsMaxAge time.Duration // how long results are kept, also from now on; 0 = as before, at first 7 days
	ResultsMax    int64         // most bytes of results; 0 = no bound
	ClaimTTL      time.Duration // how long a claim on a device outlives its worker; 0 = 30 s
}

// EnsureTopology creates the streams and buckets that are missing. Any number of
// processes may do so at once. It returns a *[NoJetStreamError] if the server has
// no JetStream, and a *[TopologyError] if a stream exists, but not as it must be.
func (c *Client) EnsureTopology(ctx context.Context, t Topology) error {
	if err := c.CheckJetStream(ctx); err != nil {
		return err
	}
	for _, cfg := range t.streams() {
		if err := c.ensure(ctx, cfg, func(ctx context.Context) error {
			_, err := c.js.CreateStream(ctx, cfg)
			return err //nolint:wrapcheck // ensure wraps it
		}); err != nil {
			return err
		}
	}
	for _, cfg := range t.buckets() {
		must := jetstream.StreamConfig{
			Name: "KV_" + cfg.Bucket, Subjects: []string{"$KV." + cfg.Bucket + ".>"},
			MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowDirect: true,
		}
		if err := c.ensure(ctx, must, func(ctx context.Context) error {
			_, err := c.js.CreateKeyValue(ctx, cfg)
			return err //nolint:wrapcheck // ensure wraps it
		}); err != nil {
			return err
		}
	}
	must := jetstream.StreamConfig{
		Name: "OBJ_" + bucketBlobs, Subjects: []string{"$O." + bucketBlobs + ".C.>", "$O." + bucketBlobs + ".M.>"},
		Discard: jetstream.DiscardNew, AllowDirect: true,
	}
	if err := c.ensure(ctx, must, func(ctx context.Context) error {
		_, err := c.js.CreateObjectStore(ctx, t.blobs())
		return err //nolint:wrapcheck // ensure wraps it
	}); err != nil {
		return err
	}
	return c.keepResultsFor(ctx, t)
}

func (c *Client) checkJetStream(ctx context.Context) error {
	_, err := c.js.AccountInfo(ctx)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return &finalError{&NoJetStreamError{Err: err}}
	}
	return err //nolint:wrapcheck // retry wraps it
}

// ensure creates a stream if it is missing, and compares what is there with what
// must be: an old server ignores settings that it does not know.
func (c *Client) ensure(ctx context.Context, must jetstream.StreamConfig, create func(context.Context) error) error {
	var have jetstream.StreamConfig
	err := c.retry(ctx, "create stream "+must.Name, func(ctx context.Context) error {
		s, err := c.stream(ctx, must.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = create(ctx)
			if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was faster
				s, err = c.stream(ctx, must.Name)
			}
		}
		if err != nil {
			return err
		}
		have = s.CachedInfo().Config
		return nil
	})
	if err != nil {
		return err
	}
	if differ := differences(must, have); len(differ) > 0 {
		return &TopologyError{Stream: must.Name, Differences: differ, Server: c.nc.ConnectedServerVersion()}
	}
	return nil
}

// differences lists the settings on which Tempo's promises rest and that are
// other than they must be. Replicas, ages and sizes are the operator's.
func differences(must, have jetstream.StreamConfig) []string {
	var differ []string
	compare := func(name string, must, have any) {
		if must, have := fmt.Sprint(must), fmt.Sprint(have); must != have {
			differ = append(differ, fmt.Sprintf("%s is %s, must be %s", name, have, must))
		}
	}
	compare("subjects", must.Subjects, slices.Sorted(slices.Values(have.Subjects)))
	compare("retention", must.Retention, have.Retention)
	compare("max_msgs_per_subject", orUnlimited(must.MaxMsgsPerSubject), orUnlimited(have.MaxMsgsPerSubject))
	compare("discard", must.Discard, have.Discard)
	compare("discard_new_per_subject", must.DiscardNewPerSubject, have.DiscardNewPerSubject)
	compare("allow_direct", must.AllowDirect, have.AllowDirect)
	compare("allow_atomic", must.AllowAtomicPublish, have.AllowAtomicPublish)
	return differ
}

func orUnlimited(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

func (t Topology) streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: streamJobs, Description: "Tempo: jobs that have no result yet", Subjects: []string{"jobs.>"},
			Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
			MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxConsumers: maxConsumers, Duplicates: dedupeWindow,
			AllowAtomicPublish: true, AllowMsgTTL: true, AllowDirect: true,
		},
		{
			Name: streamResults, Description: "Tempo: one result for each job", Subjects: []string{"results.>"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
			MaxAge: cmp.Or(t.ResultsMaxAge, resultsMaxAge), MaxBytes: cmp.Or(t.ResultsMax, -1), AllowDirect: true,
		},
		{
			Name: streamDLQ, Description: "Tempo: dead letters", Subjects: []string{"dlq.>"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxAge: dlqMaxAge, AllowDirect: true,
		},
		{
			Name: streamStats, Description: "Tempo: memory statistics of the last hour", Subjects: []string{"stats.>"},
			Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage,
			MaxAge: statsMaxAge, AllowDirect: true,
		},
	}
}

func (t Topology) buckets() []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{
		{Bucket: bucketBatches, Description: "Tempo: batch objects"},
		{Bucket: bucketWorkers, Description: "Tempo: workers that are there", TTL: workerTTL},
		{Bucket: bucketAttempts, Description: "Tempo: what became of deliveries of jobs that have no result yet"},
		{Bucket: bucketClaims, Description: "Tempo: what workers may hold of devices that they share"},
		{Bucket: bucketClaimants, Description: "Tempo: signs of life of claims", TTL: cmp.Or(t.ClaimTTL, claimTTL)},
	}
}

// blobs are kept for longer than the longest wait for what names them.
func (t Topology) blobs() jetstream.ObjectStoreConfig {
	return jetstream.ObjectStoreConfig{
		Bucket: bucketBlobs, Description: "Tempo: jobs and results that are larger than a message may be",
		TTL: dlqMaxAge + cmp.Or(t.ResultsMaxAge, resultsMaxAge),
	}
}
