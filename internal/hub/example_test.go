package hub_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"tempo/internal/hub"
)

// A command fetches a model, and says what to do where that cannot be.
func ExampleClient_Fetch() {
	empty, err := os.MkdirTemp("", "cache")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(empty)

	r, err := hub.Parse("hf://org/repo/small.Q4_K_M.gguf@v1")
	if err != nil {
		log.Fatal(err)
	}
	path, err := hub.New(hub.Options{Endpoint: os.Getenv("NO_HUB"), CacheDir: empty}).Fetch(context.Background(), r)
	fmt.Println(path, err)
	// Output:
	// fetch hf://org/repo/small.Q4_K_M.gguf@v1: the address of the hub is not set
}
