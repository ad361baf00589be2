module tempo

go 1.26.0
