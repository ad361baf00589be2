package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The package with a newer llama-server than that of the libraries' source, and its wheel
// for Linux on x86-64.
const (
	newerPackage = "xllamacpp==2026.10.11549"
	newerSHA256  = "c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261"
)

//go:embed peers/newer.py
var newerScript []byte

// fetchNewer fetches the package into a directory, and returns where it is.
func fetchNewer(ctx context.Context, dir string, w io.Writer) (string, error) {
	fmt.Fprintf(w, "fetching %s, which has a newer llama-server\n", newerPackage)
	wanted := filepath.Join(dir, "wanted")
	if err := os.WriteFile(wanted, []byte(newerPackage+" --hash=sha256:"+newerSHA256+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("write what pip is to fetch: %w", err)
	}
	if err := runTool(ctx, dir, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--require-hashes", "--requirement", wanted, "--dest", dir); err != nil {
		return "", err
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fmt.Errorf("fetch %s: pip left %d wheels", newerPackage, len(wheels))
	}
	return filepath.Join(dir, "package"), runTool(ctx, dir, "python3", "-m", "zipfile", "-e", wheels[0], "package")
}

// serverNewer is a newer llama-server on libraries of its own, with its default settings.
func (a *arena) serverNewer(ctx context.Context, c contest, _ *path, _ *vocabulary) (contestant, string, error) {
	root := filepath.Dir(filepath.Dir(a.peers.server))
	dir, err := cached(root, strings.ReplaceAll(newerPackage, "==", "-"), func(temp string) (string, error) {
		return fetchNewer(ctx, temp, a.out)
	})
	if err != nil {
		return nil, "", err
	}
	s, err := a.startNewer(ctx, dir, c.atOnce, c.slot)
	return s, fmt.Sprintf("the llama-server of %s, default settings, %d slots", newerPackage, c.atOnce), err
}

// startNewer starts it with atOnce slots of so many tokens each.
func (a *arena) startNewer(ctx context.Context, dir string, atOnce, slot int) (*server, error) {
	own, log, err := a.place("newer-")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var said firstLine
	cmd := exec.CommandContext(ctx, "python3", "-", dir, a.model, strconv.Itoa(atOnce), strconv.Itoa(atOnce*padded(slot)), strconv.Itoa(a.threads))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(newerScript), &said, log
	said.there = make(chan struct{})
	s := &server{}
	if s.peer, err = startPeer(cmd, own); err != nil {
		return nil, err
	}
	fail := func(err error) (*server, error) {
		return nil, errors.Join(fmt.Errorf("start the llama-server of %s: %w; its last lines:\n%s", newerPackage, err, lastLines(log.Name())), s.close())
	}
	select {
	case <-said.there:
	case <-s.peer.exited:
		return fail(fmt.Errorf("it has ended: %w", s.peer.err))
	case <-time.After(serverStart):
		return fail(errors.New("it does not say where it listens"))
	}
	s.load = newLoad(&http.Transport{}, said.text, atOnce, nil)
	if err := s.answers(ctx); err != nil {
		return fail(err)
	}
	return s, s.peer.pause()
}

// firstLine keeps the first line that is written to it.
type firstLine struct {
	buffer []byte
	whole  bool
	text   string        // after there is closed
	there  chan struct{} // closed when the line is whole
}

func (f *firstLine) Write(b []byte) (int, error) {
	if !f.whole {
		f.buffer = append(f.buffer, b...)
		var line []byte
		if line, _, f.whole = bytes.Cut(f.buffer, []byte("\n")); f.whole {
			f.text = string(line)
			close(f.there)
		}
	}
	return len(b), nil
}
