package memtest

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// counter counts the jobs that gave way, by what the worker logs: it publishes no
// number of them. It is a core that stands beside the log's.
type counter struct{ n atomic.Int64 }

// beside returns log with the counter, whatever level log has.
func (c *counter) beside(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return zapcore.NewTee(core, c) }))
}

// Enabled is true from info on.
func (c *counter) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

// With changes nothing: fields do not count.
func (c *counter) With([]zapcore.Field) zapcore.Core { return c }

// Check has Write called.
func (c *counter) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write counts.
func (c *counter) Write(e zapcore.Entry, _ []zapcore.Field) error {
	switch e.Message {
	case "job given back to the queue", "a job gives way and moves to host memory":
		c.n.Add(1)
	}
	return nil
}

// Sync has nothing to do.
func (c *counter) Sync() error { return nil }
