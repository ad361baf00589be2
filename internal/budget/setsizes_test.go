package budget

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is the files of process 7 with so many pages in memory and of others'; with
// sizes in KiB unless they cannot be read.
func process(resident, shared, pss, anon int) map[string]string {
	files := map[string]string{"proc/7/statm": fmt.Sprintf("99999 %d %d 10 0 500 0\n", resident, shared)}
	if pss >= 0 {
		files["proc/7/smaps_rollup"] = fmt.Sprintf("Pss: %d kB\nPss_Anon: %d kB\nPss_Shmem: 0 kB\n", pss, anon)
	}
	return files
}

func TestSetSizes(t *testing.T) {
	t.Parallel()
	pages := int(MiB) / os.Getpagesize() // of 1 MiB
	page := Bytes(os.Getpagesize())
	var s SetSizes
	start := time.Now()
	both := func(f map[string]string, after time.Duration) (pss, own Bytes) {
		pss, err := s.proportional(files(f), 7, start.Add(after))
		require.NoError(t, err)
		own, err = s.uncached(files(f), 7, start.Add(after))
		require.NoError(t, err)
		return pss, own
	}
	pss, own := both(process(100*pages, 60*pages, 70*1024, 40*1024), 0)
	require.Equal(t, []Bytes{70 * MiB, 40 * MiB}, []Bytes{pss, own})

	// Soon after, with a little more of its own: no need to look at all pages.
	pss, own = both(process(100*pages+3, 60*pages+1, -1, 0), time.Second)
	require.Equal(t, []Bytes{70*MiB + 3*page, 40*MiB + 2*page}, []Bytes{pss, own})

	// Much has changed, or it was long ago.
	pss, own = both(process(120*pages, 60*pages, 85*1024, 59*1024), 2*time.Second)
	require.Equal(t, []Bytes{85 * MiB, 59 * MiB}, []Bytes{pss, own})
	pss, own = both(process(120*pages, 60*pages, 50*1024, 59*1024), 13*time.Second)
	require.Equal(t, []Bytes{50 * MiB, 59 * MiB}, []Bytes{pss, own})

	// As much in all, but other things.
	pss, own = both(process(120*pages, 90*pages, 48*1024, 29*1024), 14*time.Second)
	require.Equal(t, []Bytes{48 * MiB, 29 * MiB}, []Bytes{pss, own})

	// Another process of that id, and one that has ended.
	_, err := s.proportional(files(nil), 7, start.Add(14*time.Second))
	require.ErrorIs(t, err, ErrProcessNotFound)
	pss, _ = both(process(120*pages, 60*pages, 44*1024, 59*1024), 14*time.Second)
	require.Equal(t, 44*MiB, pss)
	_, err = s.proportional(files(map[string]string{"proc/7/statm": "x\n"}), 7, start.Add(15*time.Second))
	require.ErrorContains(t, err, `/proc/7/statm has "x"`)
}

func TestSetSizesOfThisProcess(t *testing.T) {
	t.Parallel()
	var s SetSizes
	before, err := s.Proportional(os.Getpid())
	require.NoError(t, err)
	block := make([]byte, 64*MiB)
	for i := range block {
		block[i] = byte(i)
	}
	after, err := s.Proportional(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before.Add(48*MiB), "the pages that were touched count")
	require.NotZero(t, block[1])
	own, err := s.Uncached(os.Getpid())
	require.NoError(t, err)
	require.Less(t, own, after, "the program itself is mapped from its file")

	ended := exec.Command("true")
	require.NoError(t, ended.Start())
	require.NoError(t, ended.Wait())
	_, err = s.Uncached(ended.Process.Pid)
	require.ErrorIs(t, err, ErrProcessNotFound)
}
