package infer_test

import (
	"context"
	"fmt"
	"log"

	"tempo/api"
	"tempo/internal/infer"
	"tempo/internal/infer/infertest"
)

func ExampleEngine() {
	ctx := context.Background()
	var engine infer.Engine = &infer.Sleeper{}
	defer engine.Close()
	facts, err := engine.Open(ctx, infer.Spec{})
	if err != nil {
		log.Fatal(err)
	}
	shape := infer.Shape{Sequences: 4, Cells: facts.Context}
	planned, err := engine.DryRun(ctx, shape)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := engine.Load(ctx, shape); err != nil {
		log.Fatal(err)
	}
	out, err := engine.Generate(ctx, infer.Request{
		ID:    "1",
		Job:   &api.Request{URL: api.Completions, Prompt: "one two three", MaxTokens: 2},
		Lease: infertest.NewLease(0),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(planned.KVCache, "for the pool")
	fmt.Printf("%s (%s)\n", out.Text(), out.Choices[0].FinishReason)
	// Output:
	// 1.00 MiB for the pool
	// one two (length)
}
