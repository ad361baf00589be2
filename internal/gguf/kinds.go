package gguf

import "slices"

// attentionOnly lists the architectures whose layers all keep keys and values of
// every token, whatever the file's keys say.
// Source: llama.cpp v0.5.0, src/models.
func attentionOnly() []string {
	return []string{
		Llama, Qwen3MoE, "apertus", "arcee", "arctic", "baichuan", "bailingmoe", "bloom", "chatglm", "codeshell",
		"command-r", "dbrx", "deci", "deepseek", "dots1", "ernie4_5", "ernie4_5-moe", "exaone", "falcon", "gemma",
		"gpt2", "gptneox", "granite", "granitemoe", "grovemoe", "hunyuan-dense", "hunyuan-moe", "internlm2", "jais",
		"minicpm", "minimax-m2", "mpt", "nemotron", "olmo", "olmoe", "openelm", "orion", "phi2", "phi3", "plamo",
		"qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "refact", "seed_oss", "smollm3", "stablelm", "starcoder",
		"starcoder2", "xverse",
	}
}

// kinds says what each layer keeps, and how many tokens a Window layer sees.
// Source: llama.cpp v0.5.0, load_arch_hparams of the architecture in src/models.
func (h *Header) kinds() (kinds []Kind, window int, ok bool) {
	if n, _ := h.count("nextn_predict_layers"); n > 0 {
		return nil, 0, false // layers that draft, and are not always loaded
	}
	switch h.Architecture {
	case Gemma2:
		return h.windows(2, 4096)
	case "cohere2":
		return h.windows(4, missingWindow)
	case "gpt-oss":
		return h.windows(2, missingWindow)
	case "gemma3":
		return h.windows(6, noWindow)
	case "olmo2":
		return h.windows(4, noWindow)
	case DeepSeek2:
		return h.all(h.latent()), 0, true
	case Mamba, "mamba2":
		return h.all(Recurrent), 0, true
	case "falcon-h1":
		return h.all(Hybrid), 0, true
	case LFM2, "jamba", "granitehybrid":
		return h.byHeads()
	}
	return h.all(Attention), 0, slices.Contains(attentionOnly(), h.Architecture)
}

func (h *Header) all(k Kind) []Kind {
	return slices.Repeat([]Kind{k}, h.Layers)
}

// latent is how deepseek2 keeps tokens: files from before llama.cpp compressed
// them lack the keys, and are kept whole.
func (h *Header) latent() Kind {
	k, _ := h.count("attention.key_length_mla")
	v, _ := h.count("attention.value_length_mla")
	if k > 0 && v > 0 {
		return Latent
	}
	return Attention
}

// byHeads tells the kinds of hybrid architectures, whose layers have attention if
// they have heads for it.
func (h *Header) byHeads() (kinds []Kind, window int, ok bool) {
	attention := Attention
	if n, _ := h.count("attention.sliding_window"); n > 0 && h.Architecture == LFM2 {
		attention, window = Window, int(n)
	}
	for _, heads := range h.KVHeads {
		if heads == 0 {
			kinds = append(kinds, Recurrent)
		} else {
			kinds = append(kinds, attention)
		}
	}
	return kinds, window, true
}

// What it means that a file of an architecture with windows names none, where
// that is not a number of tokens.
const (
	noWindow      = 0  // all layers see everything
	missingWindow = -1 // not known
)

// windows tells the kinds where the last of every so many layers sees all tokens
// and the others a window, unless the file says which.
// Source: llama.cpp v0.5.0, load_swa_pattern.
func (h *Header) windows(every, absent int) (kinds []Kind, window int, ok bool) {
	window = absent
	if _, there := h.meta[h.key("attention.sliding_window")]; there {
		n, ok := h.count("attention.sliding_window")
		if !ok {
			return nil, 0, false
		}
		window = int(n)
	}
	switch window {
	case missingWindow:
		return nil, 0, false
	case noWindow:
		return h.all(Attention), 0, absent == noWindow
	}
	kinds = h.all(Attention)
	switch pattern := h.meta[h.key("attention.sliding_window_pattern")].(type) {
	case nil:
	case int64:
		if pattern < 0 || pattern > maxCount {
			return nil, 0, false
		}
		every = int(pattern)
	case []int64: // for each layer whether it has a window
		if len(pattern) != len(kinds) {
			return nil, 0, false
		}
		for i, windowed := range pattern {
			if windowed != 0 {
				kinds[i] = Window
			}
		}
		return kinds, window, true
	default:
		return nil, 0, false
	}
	for i := range kinds {
		if every == 0 || i%every < every-1 {
			kinds[i] = Window
		}
	}
	return kinds, window, true
}
