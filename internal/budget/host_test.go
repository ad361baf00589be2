package budget

import (
	"os"
	"os/exec"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// files makes a file system; names are relative to the root.
func files(texts map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range texts {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const (
	meminfo = "MemTotal:       8388608 kB\nMemFree:         100 kB\nMemAvailable:    4194304 kB\nHugePages_Total:       0\n"

	mountV2     = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	mountMemory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	mountCPU    = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	// A container of cgroup v1 without a namespace of its own.
	mountDocker = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)

func TestHostMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  HostMem
	}{
		"no cgroups": {
			map[string]string{},
			HostMem{8 * GiB, 4 * GiB, "physical memory"},
		},
		"v2 in a container": {
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/memory.max":     "2147483648\n",
				"sys/fs/cgroup/memory.current": "1610612736\n",
				"sys/fs/cgroup/memory.stat":    "anon 1073741824\ninactive_file 536870912\n",
			},
			HostMem{2 * GiB, GiB, "cgroup v2 /sys/fs/cgroup/memory.max"},
		},
		"v2, the limit is further up": {
			map[string]string{
				"proc/self/cgroup": "0::/user.slice/job.scope\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/user.slice/memory.max":               "1073741824\n",
				"sys/fs/cgroup/user.slice/memory.current":           "2147483648\n",
				"sys/fs/cgroup/user.slice/job.scope/memory.max":     "max\n",
				"sys/fs/cgroup/user.slice/job.scope/memory.current": "4096\n",
			},
			HostMem{GiB, 0, "cgroup v2 /sys/fs/cgroup/user.slice/memory.max"},
		},
		"v1 beside v2": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/job\n1:cpu:/\n0::/\n", "proc/self/mountinfo": mountV2 + mountCPU + mountMemory,
				"sys/fs/cgroup/memory.max":                       "1\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes":     "9223372036854771712\n",
				"sys/fs/cgroup/memory/memory.usage_in_bytes":     "5368709120\n",
				"sys/fs/cgroup/memory/job/memory.limit_in_bytes": "3221225472\n",
				"sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1073741824\n",
				"sys/fs/cgroup/memory/job/memory.stat":           "inactive_file 5\ntotal_inactive_file 1073741824\n",
			},
			HostMem{3 * GiB, 3 * GiB, "cgroup v1 /sys/fs/cgroup/memory/job/memory.limit_in_bytes"},
		},
		"v1 in a container": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/docker/abc/sub\n", "proc/self/mountinfo": mountDocker,
				"sys/fs/cgroup/memory/memory.limit_in_bytes":     "3221225472\n",
				"sys/fs/cgroup/memory/sub/memory.limit_in_bytes": "1073741824\n",
			},
			HostMem{GiB, GiB, "cgroup v1 /sys/fs/cgroup/memory/sub/memory.limit_in_bytes"},
		},
		"outside of what is mounted": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/other\n", "proc/self/mountinfo": mountDocker,
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "3221225472\n",
			},
			HostMem{3 * GiB, 3 * GiB, "cgroup v1 /sys/fs/cgroup/memory/memory.limit_in_bytes"},
		},
		"not mounted": {
			map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountMemory + "rubbish\n"},
			HostMem{8 * GiB, 4 * GiB, "physical memory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.files["proc/meminfo"] = meminfo
			m, err := hostMemory(files(c.files))
			require.NoError(t, err)
			require.Equal(t, c.want, m)
		})
	}
}

func TestHostMemoryFails(t *testing.T) {
	t.Parallel()
	_, err := hostMemory(files(nil))
	require.ErrorContains(t, err, "read physical memory")
	_, err = hostMemory(files(map[string]string{"proc/meminfo": "MemTotal: 5 kB\n"}))
	require.ErrorContains(t, err, "lacks MemTotal or MemAvailable")
	_, err = hostMemory(files(map[string]string{
		"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
		"sys/fs/cgroup/memory.max": "lots\n",
	}))
	require.ErrorContains(t, err, "parse /sys/fs/cgroup/memory.max", "a limit is never guessed")
	_, err = hostMemory(files(map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n"}))
	require.ErrorContains(t, err, "mountinfo")
}

func TestUsableCores(t *testing.T) {
	t.Parallel()
	v2 := func(quota string) map[string]string {
		return map[string]string{"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/a/cpu.max": quota}
	}
	v1 := func(quota string) map[string]string {
		return map[string]string{
			"proc/self/cgroup": "3:cpu,cpuacct:/\n", "proc/self/mountinfo": mountCPU,
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": quota, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
		}
	}
	both := v2("600000 100000\n")
	both["sys/fs/cgroup/cpu.max"] = "250000 100000\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int
	}{
		"none":             {nil, 8},
		"v2, no quota":     {v2("max 100000\n"), 8},
		"v2":               {v2("400000 100000\n"), 4},
		"v2, a fraction":   {v2("250000 100000\n"), 2},
		"v2, below one":    {v2("50000 100000\n"), 1},
		"v2, more":         {v2("1600000 100000\n"), 8},
		"v2, from further": {both, 2},
		"v1":               {v1("300000\n"), 3},
		"v1, no quota":     {v1("-1\n"), 8},
		"not mounted":      {map[string]string{"proc/self/cgroup": "0::/a\n"}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, usableCores(files(c.files), 8))
		})
	}
	require.Positive(t, UsableCores())
}

func TestCPUName(t *testing.T) {
	t.Parallel()
	require.Equal(t, "Fast 9000", cpuName(files(map[string]string{"proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast 9000\n"})))
	require.NotEmpty(t, cpuName(files(map[string]string{"proc/cpuinfo": "processor\t: 0\n"})))
	require.NotEmpty(t, cpuName(files(nil)))
}

func TestProportionalSetSize(t *testing.T) {
	t.Parallel()
	before, err := ProportionalSetSize(os.Getpid())
	require.NoError(t, err)
	block := make([]byte, 64*MiB)
	for i := range block {
		block[i] = byte(i)
	}
	after, err := ProportionalSetSize(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before.Add(48*MiB), "the pages that were touched count")
	require.NotZero(t, block[1])

	ended := exec.Command("true")
	require.NoError(t, ended.Start())
	require.NoError(t, ended.Wait())
	_, err = ProportionalSetSize(ended.Process.Pid)
	require.ErrorIs(t, err, ErrProcessNotFound)

	n, err := proportionalSetSize(files(map[string]string{
		"proc/7/smaps_rollup": "55dadfb06000-7ffcc0028000 ---p 00000000 00:00 0    [rollup]\nRss:      1708 kB\nPss:       364 kB\nPss_Anon:  112 kB\n",
	}), 7)
	require.NoError(t, err)
	require.Equal(t, 364*KiB, n)
	_, err = proportionalSetSize(files(map[string]string{"proc/7/smaps_rollup": "Rss: 5 kB\n"}), 7)
	require.ErrorContains(t, err, "has no line Pss")
}
