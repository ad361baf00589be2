package llama

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
	"go.uber.org/zap"

	"tempo/internal/budget"
)

// llama.cpp tells the size of its buffers only in its log. These are the lines,
// in MiB with two decimals, in the dry run and in earnest alike; model and KV
// buffers are 0.00 in a dry run, the total of the KV cache is not.
var (
	reModelBuffer   = regexp.MustCompile(`(\S+) model buffer size = +([\d.]+) MiB`)
	reComputeBuffer = regexp.MustCompile(`(\S+) +(?:compute|output) buffer size = +([\d.]+) MiB`)
	reCacheTotal    = regexp.MustCompile(`^llama_(?:kv_cache|memory_recurrent)\S*: size = +([\d.]+) MiB`)
)

// sizes are the buffers that llama.cpp reported since the last reset, by the
// name of the backend's buffer ("CPU", "CPU_Mapped", "CUDA0", …).
type sizes struct {
	model   map[string]budget.Bytes
	compute map[string]budget.Bytes
	cache   budget.Bytes
}

// logSink receives llama.cpp's log: it collects buffer sizes and the last error,
// and passes warnings and errors on.
type logSink struct {
	log *zap.Logger

	mu        sync.Mutex // guards what follows; llama.cpp logs from its own threads
	sizes     sizes
	lastError string
}

func newLogSink(log *zap.Logger) *logSink {
	s := &logSink{log: log}
	s.reset()
	return s
}

func (s *logSink) callback() uintptr {
	return purego.NewCallback(func(level int32, text, _ uintptr) uintptr {
		s.write(level, goString(text))
		return 0
	})
}

// Levels of ggml_log_level.
const (
	levelWarn     = 3
	levelError    = 4
	levelContinue = 5
)

func (s *logSink) write(level int32, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if level == levelContinue {
		return // the dots of a progress bar
	}
	line := strings.TrimSpace(text)
	s.collect(line)
	switch level {
	case levelWarn:
		s.log.Debug("llama.cpp warns", zap.String("line", line))
	case levelError:
		s.lastError = line
		s.log.Debug("llama.cpp reports an error", zap.String("line", line))
	}
}

func (s *logSink) collect(line string) {
	if m := reCacheTotal.FindStringSubmatch(line); m != nil {
		s.sizes.cache = s.sizes.cache.Add(mib(m[1]))
	} else if m := reModelBuffer.FindStringSubmatch(line); m != nil {
		s.sizes.model[m[1]] = s.sizes.model[m[1]].Add(mib(m[2]))
	} else if m := reComputeBuffer.FindStringSubmatch(line); m != nil {
		s.sizes.compute[m[1]] = s.sizes.compute[m[1]].Add(mib(m[2]))
	}
}

// reset forgets the sizes collected so far.
func (s *logSink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes = sizes{model: map[string]budget.Bytes{}, compute: map[string]budget.Bytes{}}
	s.lastError = ""
}

// take returns the sizes since the last reset and the last error line.
func (s *logSink) take() (sizes, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizes, s.lastError
}

// mib turns llama.cpp's rounded MiB into bytes.
func mib(text string) budget.Bytes {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil { // the expression admits digits and dots only
		return 0
	}
	return budget.Bytes(f * float64(budget.MiB))
}

// goString copies a NUL-terminated C string.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	base := *(*unsafe.Pointer)(unsafe.Pointer(&p)) // keeps vet content: p is C memory
	n := 0
	for *(*byte)(unsafe.Add(base, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(base), n))
}
