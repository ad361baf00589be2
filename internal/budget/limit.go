package budget

import "fmt"

// EffectiveLimit is what Tempo may hold on a device: the smaller of maximum
// (max_memory_gb) and what the device has free less a reserve, never below 0.
// The string says in one line which of them bound it.
//
// While Tempo already holds memory there, add that to dev.Free first
// ([Monitor.Last]): the limit counts Tempo's own memory, the driver does not
// call it free.
func EffectiveLimit(maximum Bytes, dev Device, reserve Bytes) (Bytes, string) {
	free := max(dev.Free.Sub(reserve), 0)
	if maximum <= free {
		return max(maximum, 0), fmt.Sprintf("max_memory_gb allows %v (%s has %v free)", maximum, dev.ID, dev.Free)
	}
	return free, fmt.Sprintf("%s has %v free, less a reserve of %v (max_memory_gb would allow %v)", dev.ID, dev.Free, reserve, maximum)
}
