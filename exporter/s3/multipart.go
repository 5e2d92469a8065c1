package s3

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	// maxParts is S3's.
	maxParts = 10_000
	// cleanup is how long the abort of an upload may take.
	cleanup = 10 * time.Second
)

// parts puts the object in parts, one after the other, each read from the
// drop's body as it goes out. It is there once the upload is completed, which
// has the same condition as a put.
func (p *put) parts(ctx context.Context) error {
	d, set := p.drop, p.sink.set
	up, err := p.client.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{
		Bucket: &set.Bucket, Key: &d.Key, ContentType: optional(d.ContentType), Metadata: p.metadata(),
		ChecksumAlgorithm:    types.ChecksumAlgorithmCrc32,
		ServerSideEncryption: types.ServerSideEncryption(set.SSE), SSEKMSKeyId: optional(set.KMSKey),
		StorageClass: types.StorageClass(set.StorageClass),
	}, func(o *sdk.Options) { o.RetryMaxAttempts = 1 }) // a second would leave the first behind, unknown; the next Put aborts both
	if err != nil {
		return err
	}
	id := up.UploadId
	done, err := p.upload(ctx, id)
	if err == nil {
		_, err = p.client.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{
			Bucket: &set.Bucket, Key: &d.Key, UploadId: id, IfNoneMatch: p.once,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
			// promise: an object of other than the drop's length is not made.
			MpuObjectSize: &d.Size,
		})
	}
	if err == nil {
		return nil
	}
	if code(err) == "NoSuchUpload" { // completed by a try whose answer got lost, or aborted by somebody
		if w, lookErr := p.look(ctx); lookErr == nil && w == ours {
			return nil
		}
	}
	if abortErr := p.abort(ctx, id); abortErr != nil && status(err) == http.StatusPreconditionFailed && passing(abortErr) {
		return abortErr // the object may turn out to be ours, and then no later try removes the parts
	}
	return err
}

// upload sends the parts.
func (p *put) upload(ctx context.Context, id *string) ([]types.CompletedPart, error) {
	size := max(p.sink.clients.o.PartSize, (p.drop.Size+maxParts-1)/maxParts)
	var done []types.CompletedPart
	for off := int64(0); off < p.drop.Size; off += size {
		n := min(size, p.drop.Size-off)
		number := aws.Int32(int32(len(done) + 1))
		part, err := p.client.UploadPart(ctx, &sdk.UploadPartInput{
			Bucket: &p.sink.set.Bucket, Key: &p.drop.Key, UploadId: id, PartNumber: number,
			Body: io.NewSectionReader(p.body, off, n), ContentLength: &n, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		})
		if err != nil {
			return nil, err
		}
		done = append(done, types.CompletedPart{PartNumber: number, ETag: part.ETag, ChecksumCRC32: part.ChecksumCRC32})
	}
	return done, nil
}

// leftovers aborts the uploads of the drop's key that earlier tries left, in
// this life or in one that was killed: what an upload has stored costs money,
// and the key is ours alone and stays the drop's for as long as it is pending.
// Where that fails for now, so does the put; where it is not allowed, or the
// store does not know how, a rule of the bucket's life cycle does the same, later.
func (p *put) leftovers(ctx context.Context) error {
	list, err := p.client.ListMultipartUploads(ctx, &sdk.ListMultipartUploadsInput{Bucket: &p.sink.set.Bucket, Prefix: &p.drop.Key})
	if err != nil {
		return onlyPassing(err)
	}
	for _, u := range list.Uploads {
		if aws.ToString(u.Key) != p.drop.Key {
			continue
		}
		if err := p.abort(ctx, u.UploadId); err != nil && passing(err) {
			return err
		}
	}
	return nil
}

// passing says whether an error is of the moment: another try may do without it.
func passing(err error) bool {
	s := judge(err)
	return !s.park && status(err) != http.StatusNotImplemented
}

func onlyPassing(err error) error {
	if passing(err) {
		return err
	}
	return nil
}

// abort has the store forget an upload, also where time is up; one that is
// gone already is what was wanted.
func (p *put) abort(ctx context.Context, id *string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	_, err := p.client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: &p.sink.set.Bucket, Key: &p.drop.Key, UploadId: id})
	if code(err) == "NoSuchUpload" || status(err) == http.StatusNotFound {
		return nil
	}
	return err
}
