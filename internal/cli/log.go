package cli

import (
	"fmt"
	"io"
	"os"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"tempo/internal/config"
)

// Screen is the standard error of a command: log lines, engine lines and a
// status line that stays below them. Safe for concurrent use.
type Screen struct {
	out      io.Writer
	terminal bool

	mu     sync.Mutex
	status string // guarded by mu
}

// NewScreen makes a screen on f; the status line is shown only on a terminal.
func NewScreen(f *os.File) *Screen {
	return &Screen{out: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// Terminal reports whether a person is looking.
func (s *Screen) Terminal() bool { return s.terminal }

const eraseLine = "\r\x1b[K"

// Write prints whole lines above the status line.
func (s *Screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != "" {
		fmt.Fprint(s.out, eraseLine)
		defer fmt.Fprint(s.out, s.status)
	}
	return s.out.Write(b) //nolint:wrapcheck // io.Writer
}

// Sync satisfies zapcore.WriteSyncer; standard error is not buffered.
func (s *Screen) Sync() error { return nil }

// Status replaces the status line; "" removes it. Without a terminal it does
// nothing.
func (s *Screen) Status(line string) {
	if !s.terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != "" || line != "" {
		fmt.Fprint(s.out, eraseLine, line)
	}
	s.status = line
}

// Logger makes the log that c asks for, on s: for people on a terminal, JSON
// otherwise.
func Logger(c config.Log, s *Screen) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	var encoder zapcore.Encoder
	if c.Format == "console" || (c.Format == "auto" && s.Terminal()) {
		e := zap.NewDevelopmentEncoderConfig()
		e.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05")
		e.EncodeLevel = zapcore.CapitalLevelEncoder
		e.ConsoleSeparator = " "
		encoder = zapcore.NewConsoleEncoder(e)
	} else {
		e := zap.NewProductionEncoderConfig()
		e.EncodeTime = zapcore.RFC3339TimeEncoder
		encoder = zapcore.NewJSONEncoder(e)
	}
	return zap.New(zapcore.NewCore(encoder, s, level)), nil
}
