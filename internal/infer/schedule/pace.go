package schedule

// costs are what a decoding step takes beside what each job in it takes, which is 1.
type costs struct {
	step     float64 // the step itself: all weights are read
	attended float64 // each token that a job has
	masked   float64 // each token of the others in the same pool, which attention passes over
}

// onCPU is what a model of 143M parameters took on two cores (llama-batched-bench: 4.7 ms
// alone, 18.5 ms for 16 in streams with 160 tokens each; 30 to 38 ms for 16 in one pool,
// of 512 tokens in common, while that grew from 1,024 to 2,048 cells; 28.5 ms for those with
// 160 tokens each).
func onCPU() costs { return costs{step: 4, attended: 0.0015, masked: 0.0003} }

// onGPU has not been measured: weights that are read once for hundreds of jobs, and
// attention that reads each cell of a pool once for all of them.
func onGPU() costs { return costs{step: 200, attended: 0.0015} }

// of is what a step with so many jobs of so many tokens takes.
func (c costs) of(jobs, tokens float64, onePool bool) float64 {
	took := c.step + jobs*(1+c.attended*tokens)
	if onePool {
		took += jobs * (jobs - 1) * c.masked * tokens
	}
	return took
}

// pace is how many tokens layouts generate in the time that one more job takes, where the
// jobs are like needs; 0 where none of them has a seat.
func (d divider) pace(layouts []layout, needs []need) float64 {
	made, took, least := 0.0, 0.0, 0
	for _, l := range layouts {
		most := l.longest()
		count, sum := 0, 0
		for _, e := range needs {
			if least < e.tokens && (e.tokens <= most || l.streams == 0) {
				count++
				sum += min(e.tokens, most)
			}
		}
		least = most // what fits here does not sit in the next
		if count == 0 {
			continue
		}
		tokens := float64(sum) / float64(count)
		jobs := float64(d.n) * float64(count) / float64(len(needs))
		if l.streams > 0 {
			jobs = min(jobs, float64(l.streams))
		} else {
			jobs = max(1, min(jobs, float64(l.cells)/tokens))
		}
		made += jobs
		took += d.costs.of(jobs, tokens, l.streams == 0)
	}
	if took == 0 {
		return 0
	}
	return made / took
}
