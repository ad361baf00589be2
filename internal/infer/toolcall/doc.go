// Package toolcall finds the calls of a request's tools in what a model wrote.
//
// Models write calls as they were trained to, as part of their text. The forms that
// are known here:
//
//	<tool_call>{"name":"f","arguments":{…}}</tool_call>   Hermes, Qwen; one or more
//	{"name":"f","parameters":{…}}                         Llama 3; the whole answer, one or more
//	[TOOL_CALLS][{"name":"f","arguments":{…}}]            Mistral; without the mark, the whole answer
//	[TOOL_CALLS]f[ARGS]{…}                                newer Mistral; one or more
//
// In all of them "arguments" may be called "parameters" and hold the JSON in a string.
// A text with anything that does not read as a call of a known tool is no call at all:
// it stays as it is.
package toolcall
