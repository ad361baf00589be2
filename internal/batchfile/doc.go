// Package batchfile reads batch files and writes output and error files.
//
// A batch file has one JSON object a line, in one of two forms that may be
// mixed: OpenAI's batch line
//
//	{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[…]}}
//
// and the short form, which becomes a chat request,
//
//	{"prompt":"Hello","custom_id":"a","system":"Be brief.","max_tokens":50}
//
// where only prompt is needed. What a body can have is api.ParseRequest's. Files of any size are read and written in
// bounded memory; a bad line is an error of its own and stops no other.
package batchfile
