package chat_test

import (
	"fmt"
	"log"

	"tempo/api"
	"tempo/internal/infer/chat"
)

func Example() {
	template, err := chat.New(chat.ChatML, "", "<|im_end|>")
	if err != nil {
		log.Fatal(err)
	}
	prompt, err := template.Render([]api.Message{
		{Role: "system", Content: "Answer in one word."},
		{Role: "user", Content: "What is the capital of France?"},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(prompt)
	// Output:
	// <|im_start|>system
	// Answer in one word.<|im_end|>
	// <|im_start|>user
	// What is the capital of France?<|im_end|>
	// <|im_start|>assistant
}
