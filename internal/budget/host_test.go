package budget

import (
	"io/fs"
	"os"
	"os/exec"
	"syscall"
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
			HostMem{8 * GiB, 4 * GiB, "physical memory", "boot"},
		},
		"v2 in a container": {
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/memory.max":     "2147483648\n",
				"sys/fs/cgroup/memory.current": "1610612736\n",
				"sys/fs/cgroup/memory.stat":    "anon 1073741824\ninactive_file 268435456\nactive_file 268435456\n",
			},
			HostMem{2 * GiB, GiB, "cgroup v2 /sys/fs/cgroup/memory.max", "boot/sys/fs/cgroup"},
		},
		"v2, the limit is further up": {
			map[string]string{
				"proc/self/cgroup": "0::/user.slice/job.scope\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/user.slice/memory.max":               "1073741824\n",
				"sys/fs/cgroup/user.slice/memory.current":           "2147483648\n",
				"sys/fs/cgroup/user.slice/job.scope/memory.max":     "max\n",
				"sys/fs/cgroup/user.slice/job.scope/memory.current": "4096\n",
			},
			HostMem{GiB, 0, "cgroup v2 /sys/fs/cgroup/user.slice/memory.max", "boot/sys/fs/cgroup/user.slice"},
		},
		"v2, throttled before it is killed": {
			map[string]string{
				"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/memory.max":      "3221225472\n",
				"sys/fs/cgroup/memory.high":     "2147483648\n",
				"sys/fs/cgroup/memory.current":  "1073741824\n",
				"sys/fs/cgroup/memory.swap.max": "1073741824\n",
			},
			HostMem{2 * GiB, GiB, "cgroup v2 /sys/fs/cgroup/memory.high", "boot/sys/fs/cgroup"},
		},
		"v2, nested, the inner is narrower": {
			map[string]string{
				"proc/self/cgroup": "0::/pod/container\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/pod/memory.max":               "4294967296\n",
				"sys/fs/cgroup/pod/memory.current":           "4026531840\n", // 3.75 GiB, most of it others'
				"sys/fs/cgroup/pod/container/memory.max":     "2147483648\n",
				"sys/fs/cgroup/pod/container/memory.high":    "max\n",
				"sys/fs/cgroup/pod/container/memory.current": "536870912\n",
			},
			HostMem{2 * GiB, GiB / 4, "cgroup v2 /sys/fs/cgroup/pod/container/memory.max", "boot/sys/fs/cgroup/pod/container"},
		},
		"v2, out of the namespace's root": {
			map[string]string{
				"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/memory.max": "2147483648\n",
			},
			HostMem{2 * GiB, 2 * GiB, "cgroup v2 /sys/fs/cgroup/memory.max", "boot/sys/fs/cgroup"},
		},
		"v1, with swap in use": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/job\n", "proc/self/mountinfo": mountMemory,
				"sys/fs/cgroup/memory/job/memory.limit_in_bytes":       "3221225472\n",
				"sys/fs/cgroup/memory/job/memory.usage_in_bytes":       "1073741824\n",
				"sys/fs/cgroup/memory/job/memory.memsw.limit_in_bytes": "4294967296\n",
				"sys/fs/cgroup/memory/job/memory.memsw.usage_in_bytes": "3758096384\n", // 2.5 GiB are swapped out
			},
			HostMem{3 * GiB, GiB / 2, "cgroup v1 /sys/fs/cgroup/memory/job/memory.limit_in_bytes", "boot/sys/fs/cgroup/memory/job"},
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
			HostMem{3 * GiB, 3 * GiB, "cgroup v1 /sys/fs/cgroup/memory/job/memory.limit_in_bytes", "boot/sys/fs/cgroup/memory/job"},
		},
		"v1 in a container": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/docker/abc/sub\n", "proc/self/mountinfo": mountDocker,
				"sys/fs/cgroup/memory/memory.limit_in_bytes":     "3221225472\n",
				"sys/fs/cgroup/memory/sub/memory.limit_in_bytes": "1073741824\n",
			},
			HostMem{GiB, GiB, "cgroup v1 /sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "boot/sys/fs/cgroup/memory/sub"},
		},
		"outside of what is mounted": {
			map[string]string{
				"proc/self/cgroup": "4:memory:/other\n", "proc/self/mountinfo": mountDocker,
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "3221225472\n",
			},
			HostMem{3 * GiB, 3 * GiB, "cgroup v1 /sys/fs/cgroup/memory/memory.limit_in_bytes", "boot/sys/fs/cgroup/memory"},
		},
		"not mounted": {
			map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountMemory + "rubbish\n"},
			HostMem{8 * GiB, 4 * GiB, "physical memory", "boot"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.files["proc/meminfo"] = meminfo
			c.files["proc/sys/kernel/random/boot_id"] = "boot\n"
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

func TestHostMemoryID(t *testing.T) {
	t.Parallel()
	here, err := HostMemory()
	require.NoError(t, err)
	again, err := HostMemory()
	require.NoError(t, err)
	require.NotEmpty(t, here.ID)
	require.Equal(t, here.ID, again.ID)
	require.Equal(t, "box", machineID(files(map[string]string{"proc/sys/kernel/hostname": "box\n"})))

	// One cgroup, seen from outside and from inside a container, and another one.
	seen := func(own, dir string, inode uint64) string {
		root := files(map[string]string{
			"proc/meminfo": meminfo, "proc/sys/kernel/random/boot_id": "boot\n",
			"proc/self/cgroup": "0::" + own + "\n", "proc/self/mountinfo": mountV2,
			dir + "/memory.max": "1073741824\n",
		})
		root[dir] = &fstest.MapFile{Mode: fs.ModeDir, Sys: &syscall.Stat_t{Ino: inode}}
		m, err := hostMemory(root)
		require.NoError(t, err)
		return m.ID
	}
	require.Equal(t, "boot/cgroup-77", seen("/pod/a", "sys/fs/cgroup/pod/a", 77))
	require.Equal(t, "boot/cgroup-77", seen("/", "sys/fs/cgroup", 77))
	require.Equal(t, "boot/cgroup-78", seen("/pod/b", "sys/fs/cgroup/pod/b", 78))
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
	broken := files(map[string]string{"proc/7/smaps_rollup": "Rss: 5 kB\n"})
	_, err = proportionalSetSize(broken, 7)
	require.ErrorContains(t, err, "has no line Pss")
}

func TestUncachedSetSize(t *testing.T) {
	t.Parallel()
	all, err := ProportionalSetSize(os.Getpid())
	require.NoError(t, err)
	own, err := UncachedSetSize(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, own)
	require.Less(t, own, all, "the program itself is mapped from its file")

	for text, want := range map[string]Bytes{
		"Pss: 100 kB\nPss_Anon: 30 kB\nPss_File: 60 kB\nPss_Shmem: 10 kB\nAnonymous: 35 kB\n": 40 * KiB,
		"Pss: 100 kB\nAnonymous: 35 kB\n": 35 * KiB,
	} {
		n, err := uncachedSetSize(files(map[string]string{"proc/7/smaps_rollup": text}), 7)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	_, err = uncachedSetSize(files(map[string]string{"proc/7/smaps_rollup": "Rss: 5 kB\n"}), 7)
	require.ErrorContains(t, err, "no line Pss_Anon or Anonymous")
	_, err = uncachedSetSize(files(nil), 7)
	require.ErrorIs(t, err, ErrProcessNotFound)
}
