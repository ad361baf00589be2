package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tempo/api"
)

// players are lanes with jobs of one cost, and the rota over them.
type players struct {
	rota  rota
	lanes []*lane
	count uint64
	now   time.Time
}

func newPlayers(n int, cost int64) *players {
	p := &players{now: time.Unix(0, 0)}
	for i := range n {
		p.join(fmt.Sprint(i), cost)
	}
	return p
}

func (p *players) join(name string, cost int64) {
	p.count++
	p.lanes = append(p.lanes, &lane{name: name, cost: cost, weight: api.DefaultWeight, fresh: true, since: p.count})
}

// play has jobs taken up to want at a time until n are, and returns who gave them:
// "0×3 1×2".
func (p *players) play(n, want int) string {
	var order string
	last, run := "", 0
	for n > 0 {
		l, share := p.rota.next(p.lanes, min(want, n), p.now)
		p.count++
		p.rota.gives(l, share, p.count, p.now)
		l.used += int64(share) * l.price(l.cost)
		n -= share
		if last != "" && l.name != last {
			order += fmt.Sprintf("%s×%d ", last, run)
			run = 0
		}
		last, run = l.name, run+share
	}
	return order + fmt.Sprintf("%s×%d", last, run)
}

func TestRotaStaysForAQuantum(t *testing.T) {
	t.Parallel()
	for _, want := range []int{1, 5, 100} {
		p := newPlayers(3, quantum/8)
		require.Equal(t, "0×8 1×8 2×8 0×8 1×8", p.play(40, want), "%d at a time", want)
	}
}

// TestRotaSharesTokensNotJobs: a lane whose job is larger than a quantum waits until
// the others have had as much.
func TestRotaSharesTokensNotJobs(t *testing.T) {
	t.Parallel()
	p := newPlayers(0, 0)
	p.join("small", quantum/4)
	p.join("large", 3*quantum)
	require.Equal(t, "small×4 large×1 small×8 large×1 small×12 large×1", p.play(27, 1))
}

// TestRotaWeighs: a batch of twice the weight has twice the tokens, and turns that are
// as much longer.
func TestRotaWeighs(t *testing.T) {
	t.Parallel()
	p := newPlayers(2, quantum/8)
	p.lanes[1].weight = 2 * api.DefaultWeight
	require.Equal(t, "0×8 1×16 0×8 1×16", p.play(48, 1))
	require.Equal(t, "0×8 1×16", p.play(24, 100))
}

// TestRotaEndsATurnInTime: no batch waits longer for another than firstMost for its
// first turn, or turnMost, and roundMost bounds the turns of many together.
func TestRotaEndsATurnInTime(t *testing.T) {
	t.Parallel()
	p := newPlayers(2, 1)
	turn := func(name string, longest time.Duration) {
		t.Helper()
		require.Equal(t, name+"×1", p.play(1, 1))
		p.now = p.now.Add(longest - 1)
		require.Equal(t, name+"×1", p.play(1, 1))
		p.now = p.now.Add(1)
	}
	turn("0", firstMost)
	turn("1", turnMost)
	turn("0", turnMost)
	p.join("new", 1)
	turn("new", roundMost/3)
	turn("1", roundMost/3)

	p = newPlayers(120, 1)
	for range 2 {
		for i := range p.lanes {
			turn(fmt.Sprint(i), roundMost/120)
		}
	}
	for _, l := range p.lanes[2:] { // those without jobs are not counted
		l.rest = restLimit
		l.used++
	}
	p.now = p.now.Add(turnMost) // the last turn of those is over
	turn("0", turnMost)
	turn("1", turnMost)
}

// TestRotaNewcomers: one that comes is next, but a stream of them does not keep the
// others from their turns.
func TestRotaNewcomers(t *testing.T) {
	t.Parallel()
	p := newPlayers(1, quantum/8)
	require.Equal(t, "0×3", p.play(3, 1)) // in its own first turn
	p.join("small", quantum/8)
	require.Equal(t, "0×5 small×8 0×8", p.play(21, 1))
	p = newPlayers(1, leastCost) // thousands in a quantum
	require.Equal(t, "0×20", p.play(20, 1))
	p.join("small", quantum/8)
	require.Equal(t, "0×44 small×8 0×1000", p.play(1052, 1))

	p = newPlayers(3, quantum/8)
	require.Equal(t, "0×8 1×8 2×8 0×3", p.play(27, 1))
	p.join("a", quantum/8)
	p.join("b", quantum/8) // the others have waited for longer
	require.Equal(t, "0×5 a×8 1×8 b×8 2×8", p.play(37, 1))
	p.lanes = p.lanes[:3]
	turns := map[string]int{}
	for i := range 60 { // each is gone after one turn, when the next one comes
		p.join(fmt.Sprint("new", i), quantum/8)
		turns[p.play(8, 1)]++
		p.lanes = p.lanes[:3]
	}
	require.GreaterOrEqual(t, turns["0×8"]+turns["1×8"]+turns["2×8"], 29)
	require.InDelta(t, turns["0×8"], turns["1×8"], 1)
	require.InDelta(t, turns["1×8"], turns["2×8"], 1)
}

// TestRotaAbsence: who had no jobs for a while gets its share from then on, and no more.
func TestRotaAbsence(t *testing.T) {
	t.Parallel()
	p := newPlayers(2, quantum/8)
	require.Equal(t, "0×8 1×8", p.play(16, 1))
	away := p.lanes[0]
	away.rest = restLimit
	p.lanes = p.lanes[1:]
	require.Equal(t, "1×801", p.play(801, 8))
	p.lanes = append(p.lanes, away)
	require.Equal(t, "1×7 0×1", p.play(8, 1))
	away.rest = 0
	require.Equal(t, "0×7 1×8 0×8 1×8", p.play(31, 1))
}
