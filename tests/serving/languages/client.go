// Makes the calls of a plan at once, by the library of Go, and prints what came of each.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// JSON has bytes as base64 in both directions.
type call struct {
	Path         string
	Metadata     map[string]string
	Messages     [][]byte
	Milliseconds int
	Most         int
}

type plan struct {
	Target, Roots, Certificate, Key string
	Calls                           []call
}

type answer struct {
	Messages [][]byte `json:"messages"`
	Code     int      `json:"code"`
	Text     string   `json:"text"`
	Details  []byte   `json:"details"`
}

type unread struct{}

func (unread) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (unread) Unmarshal(wire []byte, value any) error {
	*value.(*[]byte) = append([]byte(nil), wire...)
	return nil
}

func (unread) Name() string { return "proto" }

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func secured(p plan) credentials.TransportCredentials {
	if p.Roots == "" {
		return insecure.NewCredentials()
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(must(os.ReadFile(p.Roots)))
	if p.Key != "" {
		config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(p.Certificate, p.Key))}
	}
	return credentials.NewTLS(config)
}

func made(channel *grpc.ClientConn, c call) answer {
	found := answer{Messages: [][]byte{}, Details: []byte{}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Milliseconds)*time.Millisecond)
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(c.Metadata))
	both := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := channel.NewStream(ctx, both, c.Path, grpc.ForceCodec(unread{}))
	for at := 0; err == nil && at < len(c.Messages); at++ {
		if stream.SendMsg(&c.Messages[at]) != nil {
			break // the end of the call says why
		}
	}
	if err == nil {
		_ = stream.CloseSend()
	}
	for err == nil {
		var wire []byte
		if err = stream.RecvMsg(&wire); err == nil {
			found.Messages = append(found.Messages, wire)
			if len(found.Messages) == c.Most {
				cancel()
			}
		}
	}
	if err != io.EOF {
		ended := status.Convert(err).Proto()
		found.Code, found.Text = int(ended.Code), ended.Message
		if len(ended.Details) > 0 {
			found.Details = must(proto.Marshal(ended))
		}
	}
	return found
}

func main() {
	var p plan
	if err := json.NewDecoder(os.Stdin).Decode(&p); err != nil {
		panic(err)
	}
	channel := must(grpc.NewClient(p.Target, grpc.WithTransportCredentials(secured(p))))
	defer channel.Close()
	answers := make([]answer, len(p.Calls))
	var all sync.WaitGroup
	for at, c := range p.Calls {
		all.Add(1)
		go func() {
			defer all.Done()
			answers[at] = made(channel, c)
		}()
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		panic(err)
	}
}
