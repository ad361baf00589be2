package cli

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tempo/api"
	"tempo/internal/config"
	"tempo/internal/queue"
	"tempo/internal/submit"
)

func TestBeside(t *testing.T) {
	t.Parallel()
	broken := &hinted{"the engine is gone", "look at it"}
	until := func(ctx context.Context, err error) error { <-ctx.Done(); return err }
	interrupted := func(ctx context.Context) error { // as a batch that is cut off says it
		<-ctx.Done()
		return &submit.InterruptedError{Batch: "b", Done: 1, Total: 2, Err: context.Cause(ctx)}
	}
	for name, test := range map[string]struct {
		work, read func(context.Context) error
		says       string
	}{
		"all well": {
			func(ctx context.Context) error { return until(ctx, nil) },
			func(context.Context) error { return nil }, "",
		},
		"the worker fails": {
			func(context.Context) error { return broken }, interrupted,
			"submit: stopped waiting for batch b: 1 of 2 results are there: the worker ended: the engine is gone\n" +
				"hint: look at it; nothing is lost: run the same command again, it goes on where this one stopped\n",
		},
		"the worker ends": {
			func(context.Context) error { return nil }, interrupted,
			"submit: stopped waiting for batch b: 1 of 2 results are there: the worker ended\n" +
				"hint: nothing is lost: run the same command again, it goes on where this one stopped\n",
		},
		"the reader fails": {
			func(ctx context.Context) error { return until(ctx, nil) },
			func(context.Context) error { return errors.New("no room") }, "submit: no room\n",
		},
		"both fail": {
			func(ctx context.Context) error { return until(ctx, errors.New("ends badly")) },
			func(context.Context) error { return errors.New("no room") }, "submit: no room\nsubmit: ends badly\n",
		},
		"the worker ends badly": {
			func(ctx context.Context) error { return until(ctx, errors.New("ends badly")) },
			func(context.Context) error { return nil }, "submit: ends badly\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err, workErr := beside(t.Context(), test.work, test.read)
			var out bytes.Buffer
			Report(&out, "submit", errors.Join(err, workErr))
			require.Equal(t, test.says, out.String())
		})
	}
}

func TestTidy(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the user has pressed Ctrl-C
	tidy(ctx, zap.New(core), "put it away", func(ctx context.Context) error {
		require.NoError(t, ctx.Err())
		_, bounded := ctx.Deadline()
		require.True(t, bounded)
		return errors.New("it does not go away")
	})
	require.Equal(t, 1, logs.FilterLevelExact(zap.WarnLevel).FilterField(zap.String("what", "put it away")).Len())
}

func TestUnfinishedBatchesAreNamed(t *testing.T) {
	t.Parallel()
	e, err := queue.StartEmbedded(queue.EmbeddedOptions{Dir: t.TempDir()}, nil)
	require.NoError(t, err)
	t.Cleanup(e.Stop)
	c, err := queue.ConnectEmbedded(t.Context(), e, nil)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.EnsureTopology(t.Context(), queue.Topology{}))
	for id, status := range map[string]api.BatchStatus{"mine": api.InProgress, "ended": api.Completed, "other": api.Validating} {
		_, _, err := c.CreateBatch(t.Context(), api.Batch{ID: id, InputFileID: id + ".jsonl", Status: status})
		require.NoError(t, err)
	}
	core, logs := observer.New(zap.InfoLevel)
	require.NoError(t, nameUnfinished(t.Context(), c, "mine", "here", zap.New(core)))
	require.Equal(t, 1, logs.Len())
	fields := logs.All()[0].ContextMap()
	require.Equal(t, []any{"other", "other.jsonl", "here"}, []any{fields["batch"], fields["file"], fields["store_dir"]})
}

func TestModelOfALocalRun(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // nothing is set up
	screen := &Screen{}
	for name, test := range map[string]struct {
		models      []string
		want, route string
		local       bool
	}{
		"local":                    {[]string{"other=/models/a.gguf"}, "other", "other", true},
		"by its file":              {[]string{"/models/a.Q4_1.gguf"}, "a", "a", true},
		"of a hub":                 {[]string{"hf://org/repo/a.Q4_1.gguf@v1"}, "a", "a", true},
		"several":                  {[]string{"/models/a.gguf", "b=/models/b.gguf"}, "a", "", true},
		"not set up":               {nil, "", "", true},
		"with workers":             {[]string{"other=/models/a.gguf"}, "other", "", false},
		"with workers, a file":     {[]string{"/models/a.Q4_1.gguf"}, "a", "", false},
		"with workers, of a hub":   {[]string{"hf://org/repo/a.Q4_1.gguf"}, "a", "", false},
		"with workers, a name":     {[]string{"org/a-Q4_1"}, "org/a-Q4_1", "", false},
		"with workers, several":    {[]string{"a", "b"}, "a", "", false},
		"with workers, not a word": {nil, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &config.Config{Engine: config.Engine{Model: test.models}, Submit: config.Submit{Local: test.local}}
			opts, err := submitOptions(c, []string{"prompts.jsonl"}, screen)
			require.NoError(t, err)
			require.Equal(t, []string{test.want, test.route}, []string{opts.Lines.DefaultModel, opts.Route})
		})
	}
}

// What the settings say of tokens at one position goes to the lines that do not.
func TestSetsOfLines(t *testing.T) {
	t.Parallel()
	threshold := 0.1
	for name, test := range map[string]struct {
		c    config.Config
		want *api.Parallel
	}{
		"nothing": {config.Config{}, nil},
		"sets": {
			config.Config{Parallel: config.Parallel{SelectionThreshold: &threshold, Isolate: true}, Memory: config.Memory{MaxParallelTokens: 4}},
			&api.Parallel{Threshold: threshold, Isolate: true, MaxTokens: 4},
		},
		"default mode": {config.Config{Parallel: config.Parallel{SelectionThreshold: &threshold, DefaultMode: true}}, nil},
	} {
		opts, err := submitOptions(&test.c, []string{"prompts.jsonl"}, &Screen{})
		require.NoError(t, err, name)
		require.Equal(t, test.want, opts.Lines.Parallel, name)
	}
}

// What is wrong with a prompt's flags is said before anything is fetched, found or loaded.
func TestBadPrompt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"local": {
			[]string{"--local", "--model=m=none.gguf", "--selection-threshold=0.1", "--min-steps=9", "--max-tokens=4"},
			"submit: --prompt: --min-steps: over --max-tokens (4), got 9, allowed: an integer from 0 to 4\nhint: lower --min-steps, or raise --max-tokens\nhint: submit run --help\n",
		},
		"workers": {
			[]string{"--model=m", "--server=nats://127.0.0.1:1", "--selection-threshold=0.1", "--dynamic-threshold"},
			"submit: --prompt: --dynamic-threshold: needs --max-tokens, at whose last position the threshold is final\nhint: add --max-tokens, or leave out --dynamic-threshold\nhint: submit run --help\n",
		},
		"no model": {
			[]string{"--server=nats://127.0.0.1:1"},
			"submit: --prompt: --model: missing, allowed: the name of a model that a worker serves\nhint: add --model: the name of a model that a worker serves\nhint: submit run --help\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := Submit()
			cmd.SetArgs(append([]string{"run", "--prompt=Hi"}, test.args...))
			var says bytes.Buffer
			require.Equal(t, ExitUsage, Report(&says, "submit", execute(t.Context(), cmd)))
			require.Equal(t, test.says, says.String())
		})
	}
}

func TestForeignModelsAreNamed(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.InfoLevel)
	nameForeign([]string{"a", "c"}, []string{"a", "b"}, zap.New(core))
	require.Zero(t, logs.Len(), "lines for c are refused")
	nameForeign([]string{"a", "c"}, []string{"a"}, zap.New(core))
	require.Equal(t, 1, logs.Len())
	require.Equal(t, map[string]any{"model": "c", "answered_by": "a"}, logs.All()[0].ContextMap())
}
