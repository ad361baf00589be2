package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// client is a package client.
type client int

const (
	npm client = iota
	pip
)

// command returns the client's program and the arguments that put the archive
// of a package into the directory out. Both are told to keep no second copy in a
// cache of their own, and to put what they are still fetching below temp, where
// it can be watched; registries and proxies are as the user has set them.
func (c client) command(o Options, spec, temp, out string) (string, []string) {
	if c == npm {
		return or(o.NPM, "npm"), []string{
			"pack", spec, "--pack-destination", out, "--cache", filepath.Join(temp, "npm"),
			"--ignore-scripts", "--loglevel", "error", "--no-update-notifier",
		}
	}
	return or(o.Python, "python3"), []string{
		"-m", "pip", "download", spec, "--dest", out, "--no-deps", "--only-binary", ":all:",
		"--no-cache-dir", "--no-input", "--progress-bar", "off", "--disable-pip-version-check",
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// missing returns an error if the client is not installed.
func (c client) missing(ctx context.Context, program string, a artifact) error {
	e := &MissingError{For: a.title, Part: a.part}
	if _, err := exec.LookPath(program); err != nil {
		e.Tool = program
		e.Get = "install it (Debian, Ubuntu: apt install npm; Fedora: dnf install npm; macOS: brew install node)"
		if c == pip {
			e.Get = "install it (Debian, Ubuntu: apt install python3 python3-pip; Fedora: dnf install python3 python3-pip; macOS: brew install python)"
		}
		return e
	}
	if c == pip && exec.CommandContext(ctx, program, "-m", "pip", "--version").Run() != nil && ctx.Err() == nil {
		e.Tool = program + "'s pip"
		e.Get = "install it (Debian, Ubuntu: apt install python3-pip; Fedora: dnf install python3-pip; others: python3 -m ensurepip)"
		return e
	}
	return nil
}

// fetch runs the client and returns the path of the archive, which lies below
// temp. It shows progress while the client runs.
func fetch(ctx context.Context, o Options, a artifact, temp string) (string, error) {
	out := filepath.Join(temp, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", fmt.Errorf("fetch %s: %w", a.title, err)
	}
	program, args := a.client.command(o, a.spec, temp, out)
	if err := a.client.missing(ctx, program, a); err != nil {
		return "", err
	}
	said := &tail{}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = temp // where no project of the user's is
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 3 * time.Second
	err := watch(cmd, newMeter(o.Progress, a.title, a.bytes), temp)
	if ctx.Err() != nil {
		return "", fmt.Errorf("fetch %s: %w", a.title, context.Cause(ctx))
	}
	failed := &ClientError{Command: strings.Join(append([]string{filepath.Base(program)}, args[:min(4, len(args))]...), " "), Tail: said.lines(), Err: err, Part: a.part}
	if err != nil {
		return "", failed
	}
	list, err := os.ReadDir(out)
	if err != nil {
		return "", fmt.Errorf("fetch %s: %w", a.title, err)
	}
	if len(list) != 1 {
		failed.Err = fmt.Errorf("it left %d files instead of one", len(list))
		return "", failed
	}
	return filepath.Join(out, list[0].Name()), nil
}

// watch runs cmd and shows how the largest file below dir grows: that is the
// archive, on its way or in its place.
func watch(cmd *exec.Cmd, m *meter, dir string) error {
	m.show(0)
	if err := cmd.Start(); err != nil {
		m.end()
		return fmt.Errorf("start: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil {
				m.show(largest(dir))
			}
			m.end()
			return err
		case <-tick.C:
			m.show(largest(dir))
		}
	}
}

// largest returns the size of the largest file below dir. Files come and go
// meanwhile, so what cannot be read is passed over.
func largest(dir string) int64 {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it was there a moment ago
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n = max(n, info.Size())
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	return n
}

// tail keeps the end of what is written to it.
type tail struct{ buf []byte }

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(b []byte) (int, error) {
	const keep = 4 << 10
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*keep {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-keep:]...)
	}
	return len(b), nil
}

// lines returns the last lines that are not blank, at most eight.
func (t *tail) lines() []string {
	const most = 8
	var out []string
	for line := range strings.Lines(string(t.buf)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out[max(0, len(out)-most):]
}
