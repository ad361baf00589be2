package llama

import (
	"runtime/debug"

	"github.com/ebitengine/purego"
)

// malloc is what glibc's allocator can be told. Other C libraries have none of it; theirs give
// memory back by themselves.
type malloc struct {
	trim func(keep uintptr) int32 // malloc_trim; nil = there is none
}

// Options of mallopt(3), and what they are set to.
const (
	mmapThreshold = -3 // M_MMAP_THRESHOLD
	arenaMax      = -8 // M_ARENA_MAX

	mappedFrom = 1 << 20 // bytes
)

// tuneMalloc has the allocator map each large block by itself, so that it goes back to the
// system whole when it is freed. By itself glibc raises that threshold to 32 MiB as blocks
// are freed, and each thread that allocates has a heap of its own: compute buffers that are made
// anew again and again then leave tens of megabytes mapped with nothing in them, which count
// where the kernel bounds a process.
func tuneMalloc() malloc {
	if symbol, err := purego.Dlsym(purego.RTLD_DEFAULT, "mallopt"); err == nil {
		var mallopt func(option, value int32) int32
		purego.RegisterFunc(&mallopt, symbol)
		mallopt(mmapThreshold, mappedFrom)
		mallopt(arenaMax, 1)
	}
	var m malloc
	if symbol, err := purego.Dlsym(purego.RTLD_DEFAULT, "malloc_trim"); err == nil {
		purego.RegisterFunc(&m.trim, symbol)
	}
	return m
}

// Trim has the C library and Go give back to the system what they keep of freed
// memory.
func (l *Library) Trim() {
	debug.FreeOSMemory()
	if l.malloc.trim != nil {
		l.malloc.trim(0)
	}
}
