// Package s3 holds the built program to real S3 stores: versitygw, and moto as a second opinion.
package s3
