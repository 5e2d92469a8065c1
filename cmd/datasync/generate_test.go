package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestGenerateToStandardOutput(t *testing.T) {
	var out, errs bytes.Buffer
	g := generateCmd{Count: 300, Tenants: 3, Seed: 9, To: "-"}
	if err := g.Run(t.Context(), &console{Out: &out, Err: &errs}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 300 || !strings.Contains(out.String(), `"gen-9-300"`) {
		t.Errorf("%d lines", n)
	}
	if !strings.HasPrefix(errs.String(), "300 events (") || !strings.Contains(errs.String(), "0 rejected") {
		t.Errorf("summary: %s", errs.String())
	}
}

func TestGenerateRefusesBadUsage(t *testing.T) {
	for want, g := range map[string]generateCmd{
		"kafka://BROKER:PORT/TOPIC": {To: "kafka://127.0.0.1:9092", Tenants: 1},
		"key":                       {To: "kafka://127.0.0.1:9092/x?key=ip", Tenants: 1},
		"compression":               {To: "kafka://127.0.0.1:9092/x?compression=br", Tenants: 1},
		"--rate":                    {To: "-", Tenants: 1, Rate: -1},
		"--tenants":                 {To: "-"},
		"--requests":                {To: "-", Tenants: 1, Requests: 2},
	} {
		err := g.Run(t.Context(), &console{})
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
