package submit

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"tempo/api"
	"tempo/internal/batchfile"
)

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lines := batchfile.Options{DefaultModel: model}
	b := read(t, Options{File: write(t, append(prompts(3), "not JSON")...), Lines: lines})
	require.Equal(t, content{good: 3, bad: 1, models: []string{model}, endpoint: "/v1/chat/completions", digest: b.content.digest, marks: b.content.marks}, b.content)
	require.Len(t, b.content.marks, 3)
	require.Equal(t, []string{model}, b.Models())

	t.Run("two endpoints and models", func(t *testing.T) {
		t.Parallel()
		b := read(t, Options{Lines: lines, File: write(t,
			`{"prompt":"a","model":"b"}`,
			`{"custom_id":"c","method":"POST","url":"/v1/completions","body":{"prompt":"a","model":"a"}}`)})
		require.Equal(t, []string{"a", "b"}, b.Models())
		require.Empty(t, b.content.endpoint)
	})
	t.Run("prompt", func(t *testing.T) {
		t.Parallel()
		b := read(t, Options{Prompt: "hello", Lines: lines})
		require.Equal(t, 1, b.content.good)
	})
	t.Run("a bad prompt", func(t *testing.T) {
		t.Parallel()
		_, err := Read(t.Context(), Options{Prompt: "hello"}, nil)
		var bad *batchfile.LineError
		require.ErrorAs(t, err, &bad, "there is nothing else to send")
	})
	t.Run("only bad lines", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, 2, read(t, Options{File: write(t, "{", "}"), Lines: lines}).content.bad)
	})
	for name, test := range map[string]struct{ file, says, hint string }{
		"missing":   {filepath.Join(dir, "none"), "read " + filepath.Join(dir, "none") + ": no such file or directory", "check the path"},
		"directory": {dir, "read " + dir + ": it is a directory", "check the path"},
		"empty":     {write(t, "", "  "), "the file has no requests", "write one request a line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Read(t.Context(), Options{File: test.file, Lines: lines}, nil)
			require.ErrorContains(t, err, test.says)
			var hinted interface{ Hint() string }
			require.ErrorAs(t, err, &hinted)
			require.Contains(t, hinted.Hint(), test.hint)
		})
	}
}

func TestID(t *testing.T) {
	t.Parallel()
	id := func(o Options) string {
		o.Lines.DefaultModel = model
		return read(t, o).ID
	}
	file := write(t, prompts(3)...)
	same := id(Options{File: file})
	require.Regexp(t, `^batch_[0-9a-f]{24}$`, same)
	require.Equal(t, same, id(Options{File: file}))
	require.Equal(t, same, id(Options{File: write(t, prompts(3)...)}), "another file with the same content")
	require.Equal(t, same, id(Options{File: "-", Stdin: strings.NewReader(strings.Join(prompts(3), "\n"))}))
	seen := map[string]string{same: "the same"}
	for name, other := range map[string]Options{
		"more lines":     {File: write(t, prompts(4)...)},
		"other numbers":  {File: write(t, append([]string{"not JSON"}, prompts(3)...)...)},
		"other settings": {File: file, Lines: batchfile.Options{MaxTokens: 5}},
		"sets":           {File: file, Lines: batchfile.Options{Parallel: &api.Parallel{Threshold: 0.1, Mix: api.MixWeighted}}},
		"other sets":     {File: file, Lines: batchfile.Options{Parallel: &api.Parallel{Threshold: 0.2, Mix: api.MixWeighted}}},
		"new":            {File: file, New: true},
		"a route":        {File: file, Route: model},
		"another route":  {File: file, Route: "another"},
	} {
		other := id(other)
		require.NotContains(t, seen, other, name)
		seen[other] = name
	}
	first, second := id(Options{File: file, New: true}), id(Options{File: file, New: true})
	require.NotEqual(t, first, second)
}

func TestStandardInputIsCopied(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	b, err := Read(t.Context(), Options{File: "-", Stdin: strings.NewReader(strings.Join(prompts(3), "\n")), Lines: batchfile.Options{DefaultModel: model}}, nil)
	require.NoError(t, err)
	for range 2 { // as often as wanted
		n := 0
		for _, err := range b.in.lines() {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, 3, n)
	}
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	requireNoFiles(t, os.TempDir())

	_, err = Read(t.Context(), Options{File: "-", Stdin: strings.NewReader("\n")}, nil)
	require.ErrorContains(t, err, "standard input: the file has no requests")
	requireNoFiles(t, os.TempDir())
}

func TestFIFO(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(pipe, []byte(strings.Join(prompts(3), "\n")), 0) }()
	b := read(t, Options{File: pipe, Lines: batchfile.Options{DefaultModel: model}})
	require.NoError(t, <-wrote)
	require.Equal(t, 3, b.content.good)

	// Nobody writes, and the user has enough.
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan error, 1)
	go func() {
		_, err := Read(ctx, Options{File: pipe}, nil)
		read <- err
	}()
	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // it reads now
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-read, context.Canceled)
	require.NoError(t, writer.Close()) // in a command the reader ends with the process
}

func requireNoFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
