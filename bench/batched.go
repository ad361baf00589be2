package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// batched is llama-batched-bench: the decoding alone, without prompts, selection
// of tokens and answers. Each run is a process.
type batched struct {
	arena    *arena
	engine   func() int // the process whose libraries it must have, too
	atOnce   int
	settings []string
}

func (b *batched) close() error { return nil }

// run decodes as many tokens as the jobs have, which are all of one size, in waves
// of atOnce. What is before the first wave and that wave, which touches memory for
// the first time, are not counted. A last one of a single sequence comes after: the
// program ends without writing out what it has said, so that its last line can be
// lost.
func (b *batched) run(ctx context.Context, jobs []job) (t tally, err error) {
	waves := (len(jobs) + b.atOnce - 1) / b.atOnce
	in, out := jobs[0].in, jobs[0].out
	args := append(b.arena.arguments(b.atOnce, in+out), "--output-format", "jsonl",
		"-npp", strconv.Itoa(in), "-ntg", strconv.Itoa(out),
		"-npl", strings.Repeat(strconv.Itoa(b.atOnce)+",", waves+1)+"1")
	var said bytes.Buffer
	output, writer := io.Pipe()
	cmd := exec.CommandContext(ctx, b.arena.peers.batchedBench, append(args, b.settings...)...)
	cmd.Stdout, cmd.Stderr = writer, &said
	p, err := startPeer(cmd, b.arena.libDir)
	if err != nil {
		return t, err
	}
	go func() {
		<-p.exited
		_ = writer.Close() // never fails
	}()
	took, err := readWaves(output, func() error { return sameLibraries(b.engine(), cmd.Process.Pid) })
	if err != nil {
		_ = output.Close() // never fails
		err = errors.Join(err, p.end())
	} else if <-p.exited; p.err != nil || len(took) < waves+1 {
		err = errors.Join(p.err, fmt.Errorf("it has told of %d waves, %d were wanted", len(took), waves+2))
	}
	if err != nil {
		return t, fmt.Errorf("run llama-batched-bench: %w; it said:\n%s", err, said.String())
	}
	t = tally{prompt: len(jobs) * in, generated: len(jobs) * out}
	for _, w := range took[1 : waves+1] {
		t.took += w
	}
	// The last wave can have more than what is left of the jobs.
	t.took = time.Duration(float64(t.took) * float64(len(jobs)) / float64(waves*b.atOnce))
	return t, nil
}

// readWaves reads how long each wave took. At the first, when all is loaded, it
// calls first.
func readWaves(r io.Reader, first func() error) (took []time.Duration, err error) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if !bytes.HasPrefix(lines.Bytes(), []byte("{")) {
			continue
		}
		var wave struct {
			T float64 // seconds
		}
		if err := json.Unmarshal(lines.Bytes(), &wave); err != nil || wave.T <= 0 {
			return nil, fmt.Errorf("read what it says: %q", lines.Text())
		}
		if len(took) == 0 {
			if err := first(); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Duration(wave.T*float64(time.Second)))
	}
	return took, nil
}
