module datasync/integration

go 1.26.0

require (
	datasync v0.0.0
	github.com/klauspost/compress v1.20.3
	github.com/twmb/franz-go v1.22.0
	github.com/twmb/franz-go/pkg/kadm v1.19.0
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c
	github.com/twmb/franz-go/pkg/kmsg v1.14.0
	golang.org/x/sys v0.49.0
)

require github.com/pierrec/lz4/v4 v4.1.30 // indirect

// The fakes of the product's own packages (...test), as they are here.
replace datasync => ../
