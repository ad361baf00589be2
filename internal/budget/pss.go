package budget

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// ProportionalSetSize is the memory of a process in which each page counts by
// its share of the processes that map it: over all processes of a command it
// adds up to what the command really takes. It reads /proc/<pid>/smaps_rollup
// (Linux 4.14 or later), which takes the kernel about a millisecond for each
// GiB. It returns ErrProcessNotFound if the process has ended.
func ProportionalSetSize(pid int) (Bytes, error) {
	return proportionalSetSize(os.DirFS("/"), pid)
}

func proportionalSetSize(root fs.FS, pid int) (Bytes, error) {
	name := path.Join("proc", strconv.Itoa(pid), "smaps_rollup")
	values, err := keyedBytes(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // gone, or a zombie
		return 0, fmt.Errorf("read memory of process %d: %w", pid, ErrProcessNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
	}
	pss, ok := values["Pss"]
	if !ok {
		return 0, fmt.Errorf("read memory of process %d: /%s has no line Pss", pid, name)
	}
	return pss, nil
}
