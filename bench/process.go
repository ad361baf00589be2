package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is the process of a program that Tempo is measured against.
type peer struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	err    error         // why; after exited
}

// startPeer starts a peer over the libraries in libDir. It ends with this process,
// whatever ends that.
func startPeer(cmd *exec.Cmd, libDir string) (*peer, error) {
	// Backends are looked for in the working directory, too.
	cmd.Dir = libDir
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second
	p := &peer{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal comes when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return p, nil
}

// pause stops the process where it is, so that it takes nothing from others.
func (p *peer) pause() error { return p.signal(syscall.SIGSTOP) }

// resume lets it go on.
func (p *peer) resume() error { return p.signal(syscall.SIGCONT) }

func (p *peer) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return nil
}

// end kills the process, paused or not: nobody needs what it has.
func (p *peer) end() error {
	err := p.cmd.Process.Kill()
	<-p.exited
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return nil
}

// sameLibraries returns an error unless both processes have loaded the same files
// of llama.cpp, CPU backend included.
func sameLibraries(ours, theirs int) error {
	var lists [2][]string
	for i, pid := range []int{ours, theirs} {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err != nil {
			return fmt.Errorf("see which libraries are loaded: %w", err)
		}
		lists[i] = libraries(maps)
	}
	if len(lists[0]) == 0 || !slices.Equal(lists[0], lists[1]) {
		return fmt.Errorf("not the same libraries: Tempo's engine has %v, the peer %v", lists[0], lists[1])
	}
	return nil
}

// libraries are the files of libllama and ggml in a process's map, sorted.
func libraries(maps []byte) []string {
	found := map[string]bool{}
	for line := range bytes.Lines(maps) {
		fields := bytes.Fields(line)
		if len(fields) < 6 {
			continue
		}
		file := string(fields[5])
		name := filepath.Base(file)
		if strings.HasPrefix(name, "libllama.") || strings.HasPrefix(name, "libggml") {
			found[file] = true
		}
	}
	list := make([]string, 0, len(found))
	for file := range found {
		list = append(list, file)
	}
	slices.Sort(list)
	return list
}

// tick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on all systems.
const tick = 10 * time.Millisecond

// cpuTime is the time that a process has computed.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read a process's time: %w", err)
	}
	return parseStat(string(stat))
}

// parseStat adds the 14th and the 15th field; the second is a name in brackets
// that can have anything in it.
func parseStat(stat string) (time.Duration, error) {
	_, rest, _ := strings.Cut(stat[max(strings.LastIndex(stat, ")"), 0):], ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read a process's time: got %q, wanted at least 15 fields", stat)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("read a process's time: %w", err)
	}
	return time.Duration(user+system) * tick, nil
}
