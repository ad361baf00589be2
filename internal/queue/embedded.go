package queue

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// embeddedMemory bounds what JetStream keeps in memory; the streams are on disk.
const embeddedMemory = 64 << 20

const embeddedPayload = 8 << 20

// EmbeddedOptions say how to run a server inside this process.
type EmbeddedOptions struct {
	Dir        string // where the streams are; made if it is missing
	Listen     string // host:port for other processes (port 0 = any free one); "" = none
	SyncAlways bool   // every write reaches the disk before it is acknowledged
	MaxPayload int32  // largest job or result in bytes; 0 = 8 MiB, as in deployments/nats
}

// Embedded is a nats-server with JetStream inside this process.
type Embedded struct {
	server *server.Server
	lock   *os.File
	stop   sync.Once
}

// StartEmbedded starts a server and returns when it answers. The directory is
// locked: a second server on it would destroy it. It returns a *[DirInUseError]
// if another one has it, and a *[ListenError] if the address is taken. Stop must
// be called when all clients are closed. A nil log is silent.
func StartEmbedded(o EmbeddedOptions, log *zap.Logger) (*Embedded, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if o.Dir == "" { // the server would take the directory for temporary files
		return nil, errors.New("start the embedded server: no directory is given")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make queue directory: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := startServer(o, log.Named("nats"))
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Embedded{server: s, lock: lock}, nil
}

// URL is the address for other processes; "" if the server does not listen.
func (e *Embedded) URL() string {
	if e.server.Addr() == nil {
		return ""
	}
	return e.server.ClientURL()
}

// Stop stops the server and returns when everything is on disk and the directory
// is free. It may be called more than once.
func (e *Embedded) Stop() {
	e.stop.Do(func() {
		e.server.Shutdown()
		e.server.WaitForShutdown()
		e.lock.Close() // gives the lock back
	})
}

func startServer(o EmbeddedOptions, log *zap.Logger) (*server.Server, error) {
	opts := &server.Options{
		ServerName: "tempo", StoreDir: o.Dir, JetStream: true, NoSigs: true,
		SyncAlways: o.SyncAlways, JetStreamMaxMemory: embeddedMemory,
		DontListen: o.Listen == "", DisableJetStreamBanner: true, MaxPayload: cmp.Or(o.MaxPayload, embeddedPayload),
	}
	if o.Listen != "" {
		if err := listenOn(o.Listen, opts); err != nil {
			return nil, &ListenError{Addr: o.Listen, Err: err}
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("start the embedded server: %w", err)
	}
	logger := &serverLogger{log: log}
	s.SetLoggerV2(logger, false, false, false)
	s.Start()
	if fatal := logger.fatal(); fatal != "" || !s.ReadyForConnections(10*time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		if fatal = logger.fatal(); fatal == "" {
			fatal = "it is not ready after 10 s"
		}
		return nil, fmt.Errorf("start the embedded server: %s", fatal)
	}
	return s, nil
}

// listenOn sets the address, and tries it: the server itself would only log that
// it is taken.
func listenOn(addr string, opts *server.Options) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err //nolint:wrapcheck // ListenError wraps it
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err //nolint:wrapcheck // ListenError wraps it
	}
	defer l.Close()
	opts.Host = host
	if opts.Port, err = strconv.Atoi(port); err != nil || opts.Port == 0 {
		opts.Port = l.Addr().(*net.TCPAddr).Port // what Listen has made of it
	}
	return nil
}

// lockDir takes the lock of a directory. The system drops it with the process, so
// it is never stale; the file stays.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "tempo.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock queue directory: %w", err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock queue directory %s: %w", dir, err)
		}
		text, _ := io.ReadAll(f)                                // without it the process is not known
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // the same
		return nil, &DirInUseError{Dir: dir, PID: pid}
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock queue directory: %w", err)
	}
	return f, nil
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err //nolint:wrapcheck // lockDir wraps it
		}
	}
}

// serverLogger hands the server's log on, and keeps what it would have ended the
// process for.
type serverLogger struct {
	log *zap.Logger

	mu  sync.Mutex
	end string // the first fatal message; guarded by mu
}

func (l *serverLogger) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

func (l *serverLogger) Noticef(format string, v ...any) {
	l.log.Debug("server", zap.String("says", fmt.Sprintf(format, v...)))
}

func (l *serverLogger) Warnf(format string, v ...any) {
	text, level := fmt.Sprintf(format, v...), zap.WarnLevel
	if rebuilds(text) {
		level = zap.DebugLevel
	}
	l.log.Log(level, "server", zap.String("says", text))
}

// rebuilds reports whether a warning says only that the server reads its index anew from the
// messages, which is usual after a process was killed, and loses nothing. It has no other mark
// than its text.
func rebuilds(warning string) bool {
	return strings.HasPrefix(warning, "Filestore [") && slices.ContainsFunc([]string{
		"] Stream state outdated,", "] Recovering stream state from index errored: prior state file", " state is outdated; attempting to recover",
	}, func(part string) bool { return strings.Contains(warning, part) })
}

func (l *serverLogger) Errorf(format string, v ...any) {
	l.log.Error("server", zap.String("says", fmt.Sprintf(format, v...)))
}

func (l *serverLogger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	if l.end == "" {
		l.end = fmt.Sprintf(format, v...)
	}
	l.mu.Unlock()
	l.Errorf(format, v...)
}

func (l *serverLogger) Debugf(string, ...any) {}

func (l *serverLogger) Tracef(string, ...any) {}
