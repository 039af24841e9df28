// A plain SFU on pion/webrtc: what comes in by WHIP goes out by WHEP, packet for packet.
//
// It has Pion's fast settings: ICE lite, one UDP port with sendmmsg batches, one local track per published track (one
// header parse for all subscribers), NACK and reports and no other interceptor.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/transport/v4/udp"
	"github.com/pion/webrtc/v4"
)

const (
	receiveBufferBytes = 4 << 20
	offerBytesMax      = 64 << 10
	packetBytesMax     = 1500
)

var profiles = map[string]dtls.SRTPProtectionProfile{
	"gcm256": dtls.SRTP_AEAD_AES_256_GCM,
	"gcm128": dtls.SRTP_AEAD_AES_128_GCM,
	"sha1":   dtls.SRTP_AES128_CM_HMAC_SHA1_80,
}

// track is one published track: its publisher's connection is asked for keyframes.
type track struct {
	local     *webrtc.TrackLocalStaticRTP
	ssrc      webrtc.SSRC
	publisher *webrtc.PeerConnection
}

type sfu struct {
	api      *webrtc.API
	mu       sync.Mutex
	rooms    map[string][]*track
	sessions map[string]*webrtc.PeerConnection
	nextID   atomic.Uint64
}

func main() {
	httpAddress := flag.String("http", "127.0.0.1:8080", "address of WHIP and WHEP")
	mediaAddress := flag.String("media", "127.0.0.1:8081", "UDP address of media")
	suite := flag.String("suite", "gcm256", "gcm256, gcm128 or sha1")
	batch := flag.Int("batch", 32, "datagrams per sendmmsg, flushed after a millisecond; 0 sends each by itself")
	flag.Parse()
	api, err := newAPI(*mediaAddress, *suite, *batch)
	if err != nil {
		log.Fatal(err)
	}
	s := &sfu{api: api, rooms: map[string][]*track{}, sessions: map[string]*webrtc.PeerConnection{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whip/{room}", s.answer(s.publish))
	mux.HandleFunc("POST /whep/{room}", s.answer(s.subscribe))
	mux.HandleFunc("DELETE /session/{id}", s.end)
	log.Fatal(http.ListenAndServe(*httpAddress, mux))
}

func newAPI(mediaAddress, suite string, batch int) (*webrtc.API, error) {
	address, err := net.ResolveUDPAddr("udp4", mediaAddress)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp4", address)
	if err != nil {
		return nil, err
	}
	// The kernel may allow less; it is its default then.
	_ = socket.SetReadBuffer(receiveBufferBytes)
	_ = socket.SetWriteBuffer(receiveBufferBytes)
	var conn net.PacketConn = socket
	if batch > 0 {
		conn = udp.NewBatchConn(socket, batch, time.Millisecond)
	}
	profile, ok := profiles[suite]
	if !ok {
		return nil, fmt.Errorf("no suite %q", suite)
	}
	settings := webrtc.SettingEngine{}
	settings.SetICEUDPMux(ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn}))
	settings.SetLite(true)
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetSRTPProtectionProfiles(profile)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	registry := &interceptor.Registry{}
	if err := webrtc.ConfigureNack(media, registry); err != nil {
		return nil, err
	}
	if err := webrtc.ConfigureRTCPReports(registry); err != nil {
		return nil, err
	}
	return webrtc.NewAPI(
		webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry),
	), nil
}

// answer makes a handler of WHIP or WHEP: `prepare` adds to the connection what comes before or after the offer.
func (s *sfu) answer(prepare func(pc *webrtc.PeerConnection, room string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, offerBytesMax))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		pc, err := s.api.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sdp, err := negotiate(pc, r.PathValue("room"), string(offer), prepare)
		if err != nil {
			_ = pc.Close()
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		id := fmt.Sprint(s.nextID.Add(1))
		s.mu.Lock()
		s.sessions[id] = pc
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/sdp")
		w.Header().Set("Location", "/session/"+id)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, sdp)
	}
}

func negotiate(
	pc *webrtc.PeerConnection, room, offer string, prepare func(pc *webrtc.PeerConnection, room string) error,
) (string, error) {
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	if err := prepare(pc, room); err != nil {
		return "", err
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return pc.LocalDescription().SDP, nil
}

// publish forwards each track of the connection as soon as its first packet comes.
func (s *sfu) publish(pc *webrtc.PeerConnection, room string) error {
	pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		capability := remote.Codec().RTPCodecCapability
		local, err := webrtc.NewTrackLocalStaticRTP(capability, remote.ID(), remote.StreamID())
		if err != nil {
			log.Print(err)
			return
		}
		published := &track{local: local, ssrc: remote.SSRC(), publisher: pc}
		s.mu.Lock()
		s.rooms[room] = append(s.rooms[room], published)
		s.mu.Unlock()
		defer s.unpublish(room, published)
		packet := make([]byte, packetBytesMax)
		for {
			n, _, err := remote.Read(packet)
			if err != nil {
				return
			}
			if _, err := local.Write(packet[:n]); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				return
			}
		}
	})
	return nil
}

func (s *sfu) unpublish(room string, gone *track) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.rooms[room][:0]
	for _, t := range s.rooms[room] {
		if t != gone {
			kept = append(kept, t)
		}
	}
	s.rooms[room] = kept
}

// subscribe puts the tracks of the room on the connection's m-lines of their kind.
func (s *sfu) subscribe(pc *webrtc.PeerConnection, room string) error {
	s.mu.Lock()
	tracks := append([]*track(nil), s.rooms[room]...)
	s.mu.Unlock()
	for _, t := range tracks {
		sender, err := pc.AddTrack(t.local)
		if err != nil {
			return err
		}
		go relayKeyframeRequests(sender, t)
	}
	return nil
}

// relayKeyframeRequests also feeds the interceptors, which see RTCP only when it is read.
func relayKeyframeRequests(sender *webrtc.RTPSender, t *track) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			switch packet.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				_ = t.publisher.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: uint32(t.ssrc)}})
			}
		}
	}
}

func (s *sfu) end(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.mu.Lock()
	pc := s.sessions[id]
	delete(s.sessions, id)
	s.mu.Unlock()
	if pc == nil {
		http.Error(w, "no such session", http.StatusNotFound)
		return
	}
	_ = pc.Close()
	w.WriteHeader(http.StatusOK)
}
