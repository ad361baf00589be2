package sample_test

import (
	"fmt"

	"tempo/internal/infer/sample"
)

func ExampleSampler_Next() {
	s := sample.New(sample.Options{RepeatPenalty: 1.5, Logprobs: true, Top: 2}, 4)
	logits := []float32{1, 4, 3.5, 2}
	for range 2 {
		p, err := s.Next(logits, nil)
		if err != nil {
			panic(err)
		}
		fmt.Printf("token %d, %.2f; likeliest %d and %d\n", p.Token, p.Logprob, p.Top[0].Token, p.Top[1].Token)
	}
	// Output:
	// token 1, -0.58; likeliest 1 and 2
	// token 2, -1.08; likeliest 1 and 2
}
