package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// adminFlags are the flags of every sub-command that talks to a running
// service. The token comes from the environment alone: other users can read
// arguments.
type adminFlags struct {
	Admin string `default:"http://127.0.0.1:8080" env:"DATASYNC_ADMIN" placeholder:"URL" help:"Where the admin API listens, ${default} unless told; $$DATASYNC_ADMIN_TOKEN is its token."`
}

// answerLimit bounds what is read of an answer: 100,000 sinks have room.
const answerLimit = 256 << 20

// ask sends a request to the admin API and decodes its answer into v.
func (f adminFlags) ask(ctx context.Context, c *console, method, path string, v any) error {
	base, err := f.base()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var body io.Reader
	if method != http.MethodGet {
		body = strings.NewReader("{}")
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return usagef("--admin %q: %w", f.Admin, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token := c.Getenv("DATASYNC_ADMIN_TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// A redirect would carry the token to wherever it points.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the service: %w (is it running? --admin or $DATASYNC_ADMIN says where its admin API listens)", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("reading the answer of %s%s: %w", base, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return refused(base+path, resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return fmt.Errorf("the answer of %s%s is not what an admin API says (%w); does --admin name the right service?", base, path, err)
	}
	return nil
}

// base is the API's URL with no slash at its end.
func (f adminFlags) base() (string, error) {
	text := f.Admin
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("it is no http or https URL")
	}
	if err != nil {
		return "", usagef("--admin %q: %w; it is like http://127.0.0.1:8080", f.Admin, err)
	}
	return strings.TrimSuffix(text, "/"), nil
}

func refused(what string, status int, answer []byte) error {
	var e struct{ Error string }
	if json.Unmarshal(answer, &e) != nil || e.Error == "" {
		e.Error = string(bytes.TrimSpace(answer[:min(len(answer), 200)]))
	}
	return fmt.Errorf("%s answered %d: %s", what, status, printable(e.Error))
}

// printable keeps what others wrote from moving the cursor or changing colours.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}
